"""The engine's speed: tokens per second against a minimal PyTorch loop and Hugging Face's Trainer, and the start of a job.

Prints one JSON line. All contenders train the same small Llama on the same bytes with the same settings, each in fresh
processes, one after the other, in rounds; ours runs as users run it: with supervisor, telemetry, guard, metrics and an event line per
step. Ragged: short documents, packed by us, padded to the longest of the batch by the Trainer; only tokens with a label
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


def _peer(name: str, text: Path, steps: int, threads: int) -> float:
    settings = {**MODEL, "micro_batch": MICRO_BATCH, "steps": steps, "warmup_steps": WARMUP_STEPS}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.bench.training_peers",
        name,
        str(text),
        json.dumps(settings),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([*command, str(threads)], capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1])["tokens_per_s"])


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


def _metrics(home: Home, run_id: Any) -> list[MetricEvent]:
    batch = read_batch(home.run_dir(run_id), {}, 256 << 20)
    events = [event for file in batch.files for event in file.events]
    return [event for event in events if isinstance(event, MetricEvent) and "train/loss" in event.values]


def _ours(home: Home, spec: dict[str, Any]) -> tuple[float, float]:
    """Return tokens per second after the warm-up, and seconds from the launch to the first step's event."""
    launcher = Launcher(home)
    launched = time.time()
    run_id = launcher.launch(decode_spec(spec))

    def ended() -> RunState | None:
        state = launcher.standing(run_id).state
        return state if state is not None and state.is_terminal else None

    state = wait_for(ended, "the run to end", _LIMIT_S)
    assert state is RunState.SUCCEEDED, (home.run_dir(run_id) / "stdout.local.log").read_text()
    events = _metrics(home, run_id)
    counted = [event for event in events if event.step > WARMUP_STEPS]
    tokens = sum(float(e.values["train/tokens_per_s"]) * float(e.values["train/step_time_s"]) for e in counted)
    before = next(event.ts for event in events if event.step == WARMUP_STEPS)
    return tokens / (counted[-1].ts - before), events[0].ts - launched


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


def _rates(folder: Path, rounds: int, steps: int, threads: int) -> dict[str, list[float]]:
    plain, ragged = _texts(folder)
    home = Home(folder / "home")
    home.prepare()
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, rate in (
            ("minimal loop", lambda: _peer("loop", plain, steps, threads)),
            ("pilothouse", lambda: _ours(home, _spec(plain, "stream", steps, threads))[0]),
            ("Trainer", lambda: _peer("trainer", plain, steps, threads)),
            ("pilothouse, packed", lambda: _ours(home, _spec(ragged, "best-fit", steps, threads))[0]),
            ("Trainer, padded", lambda: _peer("padded", ragged, steps, threads)),
        ):
            found.setdefault(name, []).append(rate())
    return found


def _starts(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    plain, _ = _texts(folder)
    home = Home(folder / "starts")
    home.prepare()
    found: dict[str, dict[str, float]] = {}
    for processes in (1, 2):
        spec = _spec(plain, "stream", WARMUP_STEPS + 2, 1, parallel={"processes": processes})
        _ours(home, spec)  # Fills the cache of tokens: a second start on the same data is what users wait for.
        ours = [_ours(home, spec)[1] for _ in range(rounds)]
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
        rates = _rates(folder, asked.rounds, asked.steps, asked.threads)
        starts = {} if asked.skip_start else _starts(folder, asked.rounds)
    medians = {name: statistics.median(values) for name, values in rates.items()}

    def ratio(ours: str, peer: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[ours], rates[peer], strict=True))

    report = {
        "benchmark": "training",
        "load": os.getloadavg()[0],
        "tokens_per_s": {name: round(value, 1) for name, value in medians.items()},
        "ratio_to_minimal_loop": round(ratio("pilothouse", "minimal loop"), 3),
        "ratio_to_trainer": round(ratio("pilothouse", "Trainer"), 3),
        "ratio_packed_to_padded_trainer": round(ratio("pilothouse, packed", "Trainer, padded"), 3),
        "start": starts,
    }
    sys.stdout.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main()
