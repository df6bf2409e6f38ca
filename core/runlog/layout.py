"""Names inside a run directory, in one place. See ``docs/architecture.md`` section 4."""

from __future__ import annotations

from pathlib import Path

SPEC = "spec.toml"
ENVIRONMENT = "environment.json"
PLACEMENT = "placement.json"
STDOUT_PREFIX = "stdout"
CONTROL = "control"
CHECKPOINTS = "checkpoints"
ARTIFACTS = "artifacts"
SCRATCH = "scratch"
SUPERVISOR_RANK = "supervisor"
STOP_REQUEST = "stop"
PAUSE_REQUEST = "pause"
PROFILE_REQUEST = "profile"
MARK_VARIABLE = "PILOTHOUSE_RUN"
EVENTS_VARIABLE = "PILOTHOUSE_EVENTS"
NODE_VARIABLE = "PILOTHOUSE_NODE"


def is_supervisor_log(path: Path) -> bool:
    """Tell whether an event log is a supervisor's."""
    return path.name.endswith(f".{SUPERVISOR_RANK}.jsonl")


class RunLayout:
    """Paths of one run directory."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    @property
    def spec(self) -> Path:
        """What was asked, complete and re-runnable."""
        return self.run_dir / SPEC

    @property
    def environment(self) -> Path:
        """Versions, hardware and code state at launch."""
        return self.run_dir / ENVIRONMENT

    @property
    def placement(self) -> Path:
        """Nodes of the run; absent when it is on this machine alone."""
        return self.run_dir / PLACEMENT

    @property
    def pause_request(self) -> Path:
        """Exists while the run is asked to pause."""
        return self.control / PAUSE_REQUEST

    @property
    def checkpoints(self) -> Path:
        """Folder of verified checkpoints."""
        return self.run_dir / CHECKPOINTS

    @property
    def artifacts(self) -> Path:
        """Folder of what the run made."""
        return self.run_dir / ARTIFACTS

    @property
    def scratch(self) -> Path:
        """Folder for intermediate files; removed on success."""
        return self.run_dir / SCRATCH

    @property
    def control(self) -> Path:
        """Folder of requests to the run."""
        return self.run_dir / CONTROL

    @property
    def stop_request(self) -> Path:
        """Exists once somebody asked the run to stop."""
        return self.control / STOP_REQUEST

    def profile_request(self, rank: int) -> Path:
        """Exists while a rank is asked to record a profile; the rank takes it away."""
        return self.control / (PROFILE_REQUEST if rank == 0 else f"{PROFILE_REQUEST}.{rank}")

    @property
    def profile_steps(self) -> Path:
        """How many steps the newest request for a profile asks for."""
        return self.control / f"{PROFILE_REQUEST}.steps"

    def supervisor(self, node: str = "local") -> Path:
        """Identity and heartbeat (its modification time) of the node's supervisor."""
        return self.run_dir / f"supervisor.{node}.json"

    def exit_record(self, node: str = "local") -> Path:
        """How the run ended on the node; absent while it goes on."""
        return self.run_dir / f"exit.{node}.json"

    def reserve(self, node: str = "local") -> Path:
        """Ballast that makes room for the exit record on a full disk."""
        return self.run_dir / f"exit.{node}.reserve"

    def stdout(self, node: str = "local") -> Path:
        """Everything the workers printed."""
        return self.run_dir / f"{STDOUT_PREFIX}.{node}.log"

    def stdout_index(self, node: str = "local") -> Path:
        """When the node's output reached which size: lines of ``<unix seconds> <bytes>``, to merge the nodes' outputs."""
        return self.run_dir / f"{STDOUT_PREFIX}.{node}.index"

    def link(self, node: str) -> Path:
        """What the reader on this machine knows of the node: last contact, offsets (never on the node itself)."""
        return self.run_dir / f"link.{node}.json"

    def events(self, rank: int | str, node: str = "local") -> Path:
        """Event log of one writer."""
        return self.run_dir / f"events.{node}.{rank}.jsonl"

    def telemetry(self, node: str = "local") -> Path:
        """Telemetry samples of the node."""
        return self.run_dir / f"telemetry.{node}.jsonl"

    def event_files(self) -> list[Path]:
        """Every event and telemetry log there is, by name, the supervisors' last."""
        found = [*self.run_dir.glob("events.*.jsonl"), *self.run_dir.glob("telemetry.*.jsonl")]
        return sorted(found, key=lambda path: (is_supervisor_log(path), path.name))
