"""A run's telemetry log: dense, then sparse; a fault of a reading ends the telemetry, never the run."""

from __future__ import annotations

from pathlib import Path

from core.contracts.events import SampleEvent
from core.jobs.telemetry import DENSE_FOR_S, SPARSE_PERIOD_S, TelemetryLog
from core.runlog.tail import read_batch


class ScriptedSampler:
    """Gives a count; raises what a driver's library might, at one of them."""

    def __init__(self, fails_at: int = -1) -> None:
        self.samples = 0
        self.fails_at = fails_at

    def sample(self, root_pids: tuple[int, ...] = ()) -> dict[str, float | None]:
        self.samples += 1
        if self.samples == self.fails_at:
            raise ZeroDivisionError("driver bug")
        return {"cpu.percent": float(self.samples), "run.processes": float(len(root_pids))}

    def close(self) -> None:
        raise RuntimeError("closing fails too")


def test_it_is_dense_in_the_first_hour_and_sparse_after_it(tmp_path: Path) -> None:
    sampler = ScriptedSampler()
    log = TelemetryLog(lambda: sampler, tmp_path / "telemetry.local.jsonl", lambda _: None)
    for quarter in range(4 * 60):
        log.tick(1000 + quarter / 4, 1)
    assert sampler.samples == 60
    for quarter in range(4 * 60):
        log.tick(1000 + DENSE_FOR_S + quarter / 4, 1)
    assert sampler.samples == 60 + 60 / SPARSE_PERIOD_S
    log.close()
    (file,) = read_batch(tmp_path, {}).files
    assert all(isinstance(event, SampleEvent) for event in file.events)
    assert len(file.events) == sampler.samples


def test_a_fault_is_told_once_and_ends_only_the_telemetry(tmp_path: Path) -> None:
    sampler, told = ScriptedSampler(fails_at=2), list[str]()
    log = TelemetryLog(lambda: sampler, tmp_path / "telemetry.local.jsonl", told.append)
    for second in range(5):
        log.tick(1000.0 + second, 1)
    log.close()
    assert told == ["Telemetry was given up: ZeroDivisionError: driver bug"]
    assert sampler.samples == 2
