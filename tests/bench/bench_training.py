"""The engine's speed: tokens per second against a minimal PyTorch loop and Hugging Face's Trainer, and the start of a job.

Prints one JSON line. All contenders train the same small Llama on the same bytes with the same settings, each in a fresh
process, one after the other, in rounds; ours with guard, metrics and an event line a step. Rates are given by wall and by
processor time: the latter holds on a machine that does other things besides. Ragged: short documents, packed by us, padded to the longest of the batch by the Trainer; only tokens with a label
count. Start: from the launch to the first step's event, against ``torchrun`` on a script that imports what ours does.

    python -m tests.bench.bench_training [--rounds N] [--steps N] [--threads N] [--skip-start]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from core.contracts.events import MetricEvent
from core.contracts.states import RunState
from core.jobs.launcher import Launcher
from core.plugins.decode import decode_spec
from core.runlog.tail import read_batch
from core.settings.home import Home
from tests.helpers.waiting import wait_for

WARMUP_STEPS = 8
MODEL = {"layers": 4, "hidden": 256, "heads": 8, "context": 256}
MICRO_BATCH = 8
_LIMIT_S = 1800.0
_IMPORTS = (
    "import os, torch, torch.distributed as dist\n"
    "from transformers import LlamaForCausalLM\n"
    "if int(os.environ['WORLD_SIZE']) > 1:\n    dist.init_process_group('gloo')\n    dist.destroy_process_group()\n"
)


def _texts(folder: Path) -> tuple[Path, Path]:
    """Return a file of plain source text, and one of its functions as short documents of very unequal length."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:120]
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
    plain = folder / "text.txt"
    plain.write_text(text, encoding="utf-8")
    pieces = [piece for piece in text.split("\n\n") if len(piece.encode()) > 8]
    ragged = folder / "documents.jsonl"
    ragged.write_text("".join(f"{json.dumps({'text': piece})}\n" for piece in pieces), encoding="utf-8")
    return plain, ragged


def _rates_of(command: list[str], threads: int) -> dict[str, float]:
    """Run a contender and return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    argv = [sys.executable, "-W", "ignore", "-m", *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _peer(name: str, text: Path, steps: int, threads: int) -> dict[str, float]:
    settings = {**MODEL, "micro_batch": MICRO_BATCH, "steps": steps, "warmup_steps": WARMUP_STEPS}
    command = ["tests.bench.training_peers", name, str(text), json.dumps(settings), str(threads)]
    return _rates_of(command, threads)


def _ours(home: Path, spec: dict[str, Any], threads: int) -> dict[str, float]:
    return _rates_of(["tests.bench.training_ours", str(home), json.dumps(spec), str(WARMUP_STEPS)], threads)


def _spec(text: Path, packing: str, steps: int, threads: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "train.language",
        "steps": steps,
        "micro_batch": MICRO_BATCH,
        "evaluate_every": steps,
        "device": "cpu",
        "model": MODEL,
        "data": {"data": str(text), "packing": packing, "validation_fraction": 0.02, "validation_rows": 8},
        "optimizer": {"lr": 1e-3, "weight_decay": 0.05, "beta2": 0.999},
        "launch": {"threads": threads},
        **more,
    }


def _seconds_to_first_step(home: Home, spec: dict[str, Any]) -> float:
    """Return the seconds from a launch, as the window does it, to the first step's event."""
    launcher = Launcher(home)
    launched = time.time()
    run_id = launcher.launch(decode_spec(spec))

    def ended() -> RunState | None:
        state = launcher.standing(run_id).state
        return state if state is not None and state.is_terminal else None

    state = wait_for(ended, "the run to end", _LIMIT_S)
    assert state is RunState.SUCCEEDED, (home.run_dir(run_id) / "stdout.local.log").read_text()
    batch = read_batch(home.run_dir(run_id), {}, 256 << 20)
    events = [event for file in batch.files for event in file.events]
    return min(e.ts for e in events if isinstance(e, MetricEvent) and "train/loss" in e.values) - launched


def _bare_torchrun(folder: Path, processes: int) -> float:
    """Return the seconds that torchrun takes for a script that imports what a rank of ours does, and meets the others."""
    script = folder / "empty.py"
    script.write_text(_IMPORTS, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        str(script),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - began


def _rounds(folder: Path, rounds: int, steps: int, threads: int) -> dict[str, list[dict[str, float]]]:
    plain, ragged = _texts(folder)
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        rows = folder / f"rows-{number}", _spec(plain, "stream", steps, threads)
        packed = folder / f"packed-{number}", _spec(ragged, "best-fit", steps, threads)
        for name, rates in (
            ("minimal loop", _peer("loop", plain, steps, threads)),
            ("pilothouse", _ours(*rows, threads)),
            ("Trainer", _peer("trainer", plain, steps, threads)),
            ("pilothouse, packed", _ours(*packed, threads)),
            ("Trainer, padded", _peer("padded", ragged, steps, threads)),
        ):
            found.setdefault(name, []).append(rates)
    return found


def _starts(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    plain, _ = _texts(folder)
    home = Home(folder / "starts")
    home.prepare()
    found: dict[str, dict[str, float]] = {}
    for processes in (1, 2):
        spec = _spec(plain, "stream", WARMUP_STEPS + 2, 1, parallel={"processes": processes})
        _seconds_to_first_step(home, spec)  # Fills the cache of tokens, which later starts on the same data find.
        ours = [_seconds_to_first_step(home, spec) for _ in range(rounds)]
        bare = [_bare_torchrun(folder, processes) for _ in range(rounds)]
        figures = {"pilothouse_s": statistics.median(ours), "torchrun_s": statistics.median(bare)}
        found[f"{processes} processes"] = {**figures, "ratio": figures["pilothouse_s"] / figures["torchrun_s"]}
    return found


def main() -> None:
    """Run the rounds and print the medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-start", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        found = _rounds(folder, asked.rounds, asked.steps, asked.threads)
        starts = {} if asked.skip_start else _starts(folder, asked.rounds)

    def ratios(ours: str, peer: str) -> dict[str, float]:
        pairs = list(zip(found[ours], found[peer], strict=True))
        return {
            "wall": round(statistics.median(a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs), 3),
            "cpu": round(statistics.median(a["tokens_per_cpu_s"] / b["tokens_per_cpu_s"] for a, b in pairs), 3),
        }

    report = {
        "benchmark": "training",
        "load": os.getloadavg()[0],
        "tokens_per_cpu_s": {
            name: round(statistics.median(one["tokens_per_cpu_s"] for one in rates), 1) for name, rates in found.items()
        },
        "to_minimal_loop": ratios("pilothouse", "minimal loop"),
        "to_trainer": ratios("pilothouse", "Trainer"),
        "packed_to_padded_trainer": ratios("pilothouse, packed", "Trainer, padded"),
        "start": starts,
    }
    sys.stdout.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main()
