"""Does what the stability guard decides: skips, lowers, accumulates, rolls back, pauses, stops; each act is an event.

All ranks decide alike, so all do the same here; rank 0 reports. Clipping and taking the step are the loop's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.contracts.errors import UserError
from core.runlog.layout import RunLayout
from core.train.engine.contracts import Decision
from core.train.engine.position import Position

if TYPE_CHECKING:
    from core.train.engine.loop import LoopParts

_PAUSE_LIMIT_S = 10.0
_PAUSE_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What became of a step.

    Attributes:
        takes_step: The weights may be updated, if all is finite.
        clip_to: Gradient norm to scale down to.
        lr_factor: What this step's learning rate is multiplied by.
        rolled_back: The training stands at a checkpoint again.
        must_stop: The run is to save and end.
    """

    takes_step: bool = True
    clip_to: float | None = None
    lr_factor: float = 1.0
    rolled_back: bool = False
    must_stop: bool = False


class Remedies:
    """Carries decisions out. Thread: the main one, on every rank.

    Args:
        parts: What the loop works with.
        at: Where the training stands; changed in place.
    """

    def __init__(self, parts: LoopParts, at: Position) -> None:
        self._parts = parts
        self._at = at

    def carry_out(self, step: int, decision: Decision) -> Act:
        """Do what was decided about a step.

        Raises:
            UserError: The decision is to stop, or to pause and nobody takes the request.
            EnvironmentProblem: No checkpoint can be read or saved.
        """
        for signal, reason in decision.notes:
            self._tell(step, signal, "note", reason)
        match decision.action:
            case "skip":
                act, done = Act(takes_step=False), "skip"
            case "clip":
                act, done = Act(clip_to=decision.clip_to), "clip"
            case "lower-lr":
                act, done = self._lower_lr(decision)
            case "raise-accumulation":
                act, done = self._raise_accumulation()
            case "roll-back":
                act, done = self._roll_back(step)
            case "pause":
                self._tell(step, decision.signal, "pause", decision.reason)
                return self._pause(decision)
            case "stop":
                self._tell(step, decision.signal, "stop", decision.reason)
                raise UserError(
                    f"The stability guard stopped the run at step {step}. {decision.reason}",
                    "Lower the learning rate or look at the data of these steps, then resume from the last checkpoint.",
                )
            case _:
                act, done = Act(), "note"
        if decision.signal:
            self._tell(step, decision.signal, done, decision.reason)
        return act

    def _tell(self, step: int, signal: str, action: str, reason: str) -> None:
        if self._parts.model.mesh.is_main:
            self._parts.context.stability(step, signal, action, reason)

    def _lower_lr(self, decision: Decision) -> tuple[Act, str]:
        factor = self._parts.spec.stability.lr_factor
        self._at.lr_factor *= factor
        return Act(lr_factor=factor, clip_to=decision.clip_to), "lower-lr"

    def _raise_accumulation(self) -> tuple[Act, str]:
        """Double the micro-batches of a step, unless the spec fixes the samples of one."""
        if self._parts.spec.global_batch:
            return Act(), "note"
        self._at.accum *= 2
        self._at.accum_factor *= 2
        return Act(), "raise-accumulation"

    def _roll_back(self, step: int) -> tuple[Act, str]:
        """Go back to a checkpoint, and leave this step's samples out when it comes again; else skip the step."""
        skips = dict(self._at.skips)
        skips[step] = skips.get(step, 0) + 1
        elapsed_s = self._at.elapsed_s
        if not self._parts.keeper.roll_back():
            return Act(takes_step=False), "skip"
        self._at.skips, self._at.elapsed_s = skips, elapsed_s
        context = self._parts.context
        if self._parts.model.mesh.is_main:
            context.started_from(self._at.step)
            context.log(
                f"Rolled back from step {step} to the checkpoint of step {self._at.step}; the samples of step {step} are "
                "left out.",
                "warning",
            )
        return Act(takes_step=False, rolled_back=True), "roll-back"

    def _pause(self, decision: Decision) -> Act:
        """Ask for a pause as the window does; it comes as a request to stop, and the loop saves and ends."""
        context = self._parts.context
        if self._parts.model.mesh.is_main:
            context.log(f"The stability guard pauses the run. {decision.reason}", "warning")
            request = RunLayout(context.run_dir).pause_request
            request.parent.mkdir(exist_ok=True)
            request.touch()
        limit = time.monotonic() + _PAUSE_LIMIT_S
        while not self._parts.agreement.any(context.should_stop()):
            if self._parts.agreement.any(time.monotonic() > limit):
                self._parts.updater.drop()
                self._parts.keeper.save(wait=True)
                raise UserError(
                    f"The stability guard paused the run. {decision.reason}", "Look at it, then resume the run."
                )
            time.sleep(_PAUSE_POLL_S)
        return Act(takes_step=False, must_stop=True)
