"""Why a script failed, said in one sentence, from what real programs print."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.train.script.diagnosis import explain_failure, failed_rank, read_tail

PLAIN = """loading
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    main()
ValueError: shapes (3,4) and (5,) do not match
"""
CHAINED = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
my.package.ConfigError: no x in the configuration
"""
TORCHRUN = """[rank0]: Traceback (most recent call last):
[rank0]:   File "t.py", line 9, in <module>
[rank0]: RuntimeError: [1] Connection closed by peer
[rank1]: Traceback (most recent call last):
[rank1]:   File "t.py", line 7, in <module>
[rank1]: ValueError: bad sample 17
E1124 06:00:00.000000 1 torch/distributed/elastic/multiprocessing/api.py:900] failed (exitcode: 1) local_rank: 1
Traceback (most recent call last):
  File "run.py", line 1, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
t.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-24_06:00:01
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 10)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_06:00:00
  host      : h
  rank      : 1 (local_rank: 1)
  exitcode  : 3 (pid: 11)
  error_file: <N/A>
============================================================
"""


@pytest.mark.parametrize(
    ("code", "output", "message", "hint"),
    [
        (1, PLAIN, "ended with exit code 1: ValueError: shapes (3,4) and (5,) do not match.", "log shows"),
        (1, CHAINED, "my.package.ConfigError: no x in the configuration.", "log shows"),
        (1, TORCHRUN, "Rank 1 of the script ended with exit code 3: ValueError: bad sample 17.", "log shows"),
        (
            1,
            "Traceback (most recent call last):\n  x\nModuleNotFoundError: No module named 'peft.utils'\n",
            "peft",
            "Install 'peft' for py",
        ),
        (
            1,
            "/usr/bin/python3: No module named accelerate\n",
            "No module named 'accelerate'",
            "Install 'accelerate' for py",
        ),
        (
            1,
            "Traceback (most recent call last):\n  x\ntorch.OutOfMemoryError: CUDA out of memory.\n",
            "CUDA out of memory",
            "smaller batch",
        ),
        (-9, "step 3\n", "was ended by SIGKILL: step 3.", "memory runs out"),
        (137, "", "was ended by SIGKILL.", "memory runs out"),
        (-11, "", "was ended by SIGSEGV.", "log shows"),
        (3, "Please set the data folder!\n\n", "exit code 3: Please set the data folder!", "log shows"),
        (2, " 10%|█  | 1/9 [0:1]\r 20%|█  | 2/9 [0:1]\n", "exit code 2:", "log shows"),
    ],
)
def test_the_sentence_names_the_cause(code: int, output: str, message: str, hint: str) -> None:
    error = explain_failure(code, output, "py")
    assert message in error.message
    assert hint in error.hint


def test_an_echo_does_not_hide_the_rank_that_failed_first() -> None:
    output = """[rank2]: [rank2]: RuntimeError: Connection closed by peer [10.0.0.1]:4711
[rank5]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.11 GiB of which 1.20 GiB is free.
"""
    error = explain_failure(1, output + TORCHRUN.split("[rank0]", maxsplit=1)[0], "py")
    assert error.message.startswith("Rank 5 of the script ended with exit code 1: CUDA out of memory: 2.00 GiB more")
    assert "1.20 GiB free of 79.11 GiB" in error.message


def test_a_killed_rank_is_not_told_in_the_words_of_those_that_lost_it() -> None:
    output = """[rank0]: Traceback (most recent call last):
[rank0]: RuntimeError: Connection closed by peer [10.0.0.1]:4711
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 11)
"""
    error = explain_failure(1, output, "py", "The training")
    assert error.message == "Rank 1 of the training was ended by SIGKILL."
    assert "memory runs out" in error.hint


def test_the_tail_begins_with_this_attempt_and_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n" + b"new\n")
    assert read_tail(log, 4) == "new\n"
    log.write_bytes(b"x" * (1 << 20))
    assert len(read_tail(log, 0)) == 1 << 18
    assert read_tail(tmp_path / "missing", 0) == ""


def test_of_ranks_that_fail_at_the_same_moment_the_killed_one_is_the_cause() -> None:
    listed = (
        "[rank0]: Failures:\n[1]:\n  time      : 2026\n  host      : h\n  rank      : 2 (local_rank: 0)\n"
        "  exitcode  : -9 (pid: 7)\n  error_file: <N/A>\n  traceback : Signal 9 (SIGKILL) received by PID 7\n"
        "Root Cause (first observed failure):\n[0]:\n  time      : 2026\n  host      : h\n"
        "  rank      : 3 (local_rank: 1)\n  exitcode  : 1 (pid: 8)\n"
    )
    assert failed_rank(listed) == (2, -9)
    assert failed_rank(listed.replace("-9", "1")) == (3, 1)
    assert failed_rank("nothing of the kind") == (None, None)
