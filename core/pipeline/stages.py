"""Runs the stages of a pipeline as runs of their own, one after the other, and tells how far the whole is.

A stage that already succeeded is not repeated when the pipeline is resumed; one that still goes on is waited for; one
that stopped on the way, then or before, goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.contracts.errors import Cancelled, UserError
from core.contracts.ids import RunId
from core.contracts.runs import RunSummary
from core.contracts.specs import RunSpec
from core.contracts.states import RESUMABLE_STATES, RunState
from core.contracts.worker import RunContext
from core.runlog.lineage import children_of

if TYPE_CHECKING:
    from core.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        role: Its name in the pipeline's lineage, such as ``train``.
        title: Its name for people, at the beginning of a sentence.
        share: Its usual share of the whole time, 0 to 1.
        goes_on: After a stop it continues from its checkpoint; else it starts afresh.
        spec: Makes its spec from the runs of the stages before it, by role.
    """

    role: str
    title: str
    share: float
    goes_on: bool
    spec: Callable[[dict[str, RunId]], RunSpec]


class StageRunner:
    """Runs stages for one pipeline run. Thread: the worker's main thread."""

    def __init__(self, workspace: Workspace, context: RunContext) -> None:
        self._workspace = workspace
        self._context = context
        self._done = 0.0

    def run(self, stages: tuple[Stage, ...]) -> dict[str, RunId]:
        """Run all stages; return their runs by role.

        Raises:
            Cancelled: The pipeline was asked to stop; the stage in hand was stopped with it.
            UserError: A stage failed or was stopped by somebody else.
        """
        earlier = children_of(self._context.run_dir)
        runs: dict[str, RunId] = {}
        for stage in stages:
            if self._context.should_stop():
                raise Cancelled
            self._context.progress(self._done, stage.title)
            runs[stage.role] = self._finish(stage, self._begin(stage, earlier.get(stage.role), runs))
            self._done += stage.share
        return runs

    def _begin(self, stage: Stage, earlier: RunId | None, runs: dict[str, RunId]) -> RunId:
        """Return the run of a stage: the earlier one where it can be used, else a new one."""
        if earlier is not None and self._context.attempt > 1:
            state = self._state_of(earlier)
            if state is not None and not state.is_terminal:
                # Its guardian was the attempt before this one: it may be saving and ending now.
                state = self._wait(stage, earlier).state
                if self._context.should_stop():
                    raise Cancelled
            if state is RunState.SUCCEEDED:
                return earlier
            if state in RESUMABLE_STATES and stage.goes_on:
                self._workspace.resume(earlier, guardian=self._context.run_dir)
                return earlier
        run_id = self._workspace.launch_spec(stage.spec(runs), guardian=self._context.run_dir)
        self._context.child(run_id, stage.role)
        return run_id

    def _state_of(self, run_id: RunId) -> RunState | None:
        """Return the state of a run as its directory tells it now; None when it was deleted."""
        if not self._workspace.home.run_dir(run_id).is_dir():
            return None
        self._workspace.sync()
        return self._workspace.summary(run_id).state

    def _wait(self, stage: Stage, run_id: RunId) -> RunSummary:
        def tell(summary: RunSummary) -> None:
            inner = summary.stage or summary.state.value
            self._context.progress(self._done + stage.share * (summary.progress or 0.0), f"{stage.title}: {inner}")

        return self._workspace.wait(run_id, tell, self._context.should_stop)

    def _finish(self, stage: Stage, run_id: RunId) -> RunId:
        summary = self._wait(stage, run_id)
        if summary.state is RunState.SUCCEEDED:
            return run_id
        if self._context.should_stop():
            raise Cancelled
        reason = f": {summary.message}" if summary.message else "."
        raise UserError(f"{stage.title} {summary.state.value}{reason}", summary.hint or f"Open the run {run_id}.")
