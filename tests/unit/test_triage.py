"""Known failures told from what real programs print, with rank prefixes, echoes and noise around them."""

from __future__ import annotations

import pytest

from core.jobs.triage import classify, rank_and_line

OUT_OF_MEMORY = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.11 GiB of "
    "which 1.20 GiB is free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
)
NCCL_TIMEOUT = (
    "[rank3]:[E1124 09:12:01.111 ProcessGroupNCCL.cpp:632] [Rank 3] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=12, OpType=ALLREDUCE, NumelIn=262144, NumelOut=262144, Timeout(ms)=600000) ran for 600029 "
    "milliseconds before timing out."
)
GLOO_TIMEOUT = (
    "[rank0]: RuntimeError: [../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 15000ms for "
    "recv operation to complete"
)
GLOO_CLOSED = (
    "[rank0]: RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer "
    "[10.211.0.2]:51234"
)
CASES = [
    (
        "gpu_memory",
        OUT_OF_MEMORY,
        "CUDA out of memory: 2.00 GiB more were asked for on GPU 1 with 1.20 GiB free of 79.11",
    ),
    ("gpu_memory", "RuntimeError: CUDA error: out of memory", "CUDA out of memory"),
    (
        "gpu_memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA out of memory",
    ),
    (
        "memory",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)",
        "1024.00 GiB more were asked for",
    ),
    ("memory", "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB for an array", None),
    ("memory", "MemoryError", "memory of the machine ran out"),
    (
        "shared_memory",
        "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory. Please try to raise your shared memory limit.",
        "/dev/shm",
    ),
    (
        "memory_killed",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=42.0. Some of the step tasks have been OOM Killed.",
        "The system killed a process",
    ),
    ("memory_killed", "[1234.5] Out of memory: Killed process 4711 (python) total-vm:99kB", "The system killed"),
    (
        "time_limit",
        "slurmstepd: error: *** STEP 42.0 ON n1 CANCELLED AT 2026-11-24T09:00:00 DUE TO TIME LIMIT ***",
        "time limit",
    ),
    (
        "preempted",
        "slurmstepd: error: *** JOB 42 ON n1 CANCELLED AT 2026-11-24T09:00:00 DUE TO PREEMPTION ***",
        "preempted",
    ),
    (
        "node_failed",
        "slurmstepd: error: *** JOB 42 ON n1 CANCELLED AT 2026-11-24T09:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***",
        "node of the job failed",
    ),
    ("missing_module", "ModuleNotFoundError: No module named 'peft.utils'", "No module named 'peft.utils'."),
    ("missing_module", "/usr/bin/python3: No module named accelerate", "No module named 'accelerate'."),
    (
        "driver",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
        "11040",
    ),
    (
        "driver",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "no code for this GPU",
    ),
    ("driver", "Failed to initialize NVML: Driver/library version mismatch", "do not fit together"),
    (
        "driver",
        "Error 804: forward compatibility was attempted on non supported HW",
        "do not fit together",
    ),
    ("driver", "AssertionError: Torch not compiled with CUDA enabled", "this torch finds none"),
    ("device", "RuntimeError: CUDA error: invalid device ordinal", "not there"),
    ("disk_full", "OSError: [Errno 28] No space left on device: '/data/ckpt.pt'", "disk is full"),
    ("disk_full", "OSError: [Errno 122] Disk quota exceeded", "disk is full"),
    (
        "port_in_use",
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: "
        "29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
        "port",
    ),
    ("host_key", "Host key verification failed.", "key"),
    (
        "gated_model",
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url https://example.org",
        "gated",
    ),
    (
        "permission",
        "PermissionError: [Errno 13] Permission denied: '/data/out'",
        "There is no permission for '/data/out'.",
    ),
    (
        "data_row",
        "pandas.errors.ParserError: Error tokenizing data. C error: Expected 3 fields in line 5, saw 4",
        "Expected 3 fields in line 5, saw 4.",
    ),
    ("data_row", "pyarrow.lib.ArrowInvalid: CSV parse error: Row #17: Expected 2 columns, got 3: a,b,c", "(row 17)"),
    (
        "data_row",
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 17 column 2 (char 99)",
        "line 17 column 2",
    ),
    (
        "data_row",
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 3: invalid continuation byte",
        "0xe9",
    ),
    (
        "missing_file",
        "FileNotFoundError: [Errno 2] No such file or directory: 'train.csv'",
        "There is no file 'train.csv'.",
    ),
    ("open_files", "OSError: [Errno 24] Too many open files", "limit of open files"),
    ("collective_timeout", NCCL_TIMEOUT, "Rank 3 waited 600 s in ALLREDUCE"),
    ("collective_timeout", GLOO_TIMEOUT, "waited 15 s for another one (recv)"),
    (
        "rendezvous_timeout",
        "torch.distributed.DistStoreError: Timed out after 61 seconds waiting for clients. 1/2 clients joined.",
        "did not all meet",
    ),
    ("peer_gone", GLOO_CLOSED, "that one failed first"),
    (
        "peer_gone",
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3356, remote process exited or there was "
        "a network error, NCCL version 2.27.5",
        "that one failed first",
    ),
    (
        "peer_gone",
        "RuntimeError: Gloo connectFullMesh failed with [../third_party/gloo/gloo/transport/tcp/pair.cc:144] no error",
        "that one failed first",
    ),
    (
        "peer_gone",
        "torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to the C10d store has failed.",
        "closed by another node",
    ),
    (
        "ended_by_signal",
        "torch.distributed.elastic.multiprocessing.api.SignalException: Process 4711 got signal: 15",
        "asked to end",
    ),
]


@pytest.mark.parametrize(("kind", "line", "message"), CASES)
def test_a_known_failure_is_told_in_a_sentence_with_a_remedy(kind: str, line: str, message: str | None) -> None:
    found = classify(f"step 17 loss 0.5\n{line}\nsome more words\n", "n1")
    if message is None:
        assert found is None or found.kind == kind
        return
    assert found is not None, line
    assert found.kind == kind
    assert message in found.message
    assert found.message.endswith(".")
    assert found.hint.endswith(".")
    assert found.node == "n1"
    assert found.line in line


def test_the_cause_wins_over_its_echoes_wherever_it_stands() -> None:
    text = f"{GLOO_CLOSED}\n{NCCL_TIMEOUT}\n[rank7]: [rank7]: {OUT_OF_MEMORY}\n{GLOO_CLOSED}\nOSError: No space left on device\n"
    found = classify(text)
    assert found is not None
    assert (found.kind, found.rank, found.is_secondary) == ("gpu_memory", 7, False)


def test_a_rank_that_waited_tells_more_than_a_lost_connection() -> None:
    found = classify(f"{GLOO_CLOSED}\n{GLOO_TIMEOUT}\n")
    assert found is not None
    assert (found.kind, found.rank, found.is_secondary) == ("collective_timeout", 0, False)
    echo = classify(GLOO_CLOSED)
    assert echo is not None
    assert echo.is_secondary


def test_what_is_not_known_is_not_guessed() -> None:
    assert classify("") is None
    assert classify("epoch 1\nValueError: shapes (3,4) and (5,) do not match\n\x00\xff" + "x" * 100_000) is None


def test_colours_and_doubled_prefixes_are_seen_through() -> None:
    assert rank_and_line("\x1b[31m[rank12]: [rank12]: Traceback\x1b[0m") == (12, "Traceback")
    assert rank_and_line("[default3]:text") == (3, "text")
    assert rank_and_line("plain [rank1]: text") == (None, "plain [rank1]: text")
