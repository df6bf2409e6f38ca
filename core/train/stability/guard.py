"""The stability guard: judges each step before its update is made, and says by the policies of the spec what to do.

How: every watched quantity has a window of recent values (``windows``); a value beyond its usual range is a signal; each
signal has a policy; of several, the most severe is carried out and the others become notes. It is pure: equal observations
give equal decisions, so that all ranks act alike without asking each other. What it does not do: act. The loop skips, rolls
back, lowers; see ``core.train.engine``.

A high loss is called a spike when it is far beyond the limit, or when two of three steps are beyond it: one hard batch of
heavy-tailed data is neither damaged weights nor worth a roll-back, and its gradient is seen to by the gradient's own
signal. The values of steps that are not taken enter no window.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from core.train.engine.contracts import Decision, Guard, Observation
from core.train.specs.stability import Policy, StabilitySpec
from core.train.stability.speed import SpeedWatch
from core.train.stability.windows import BlockValues, RecentValues

NOT_FINITE = "not_finite"
LOSS_SPIKE = "loss_spike"
GRADIENT_SPIKE = "gradient_spike"
UPDATE_RATIO = "update_ratio"
SCALE_COLLAPSE = "scale_collapse"
SLOW_STEP = "slow_step"
DATA_WAIT = "data_wait"

Advise = Callable[[float], str]
_SEVERITY = {policy: rank for rank, policy in enumerate(get_args(Policy))}
_COUNTED = frozenset({"lower-lr", "raise-accumulation", "roll-back"})
_NOT_TAKEN = frozenset({"skip", "roll-back", "pause", "stop"})
_LASTING = frozenset({UPDATE_RATIO, SLOW_STEP, DATA_WAIT})
"""Signals that stay for a while: acting on each of their steps would use up the attempts at once."""
_LEAST_VALUES = 8
_FAR = 3.0
"""A single loss counts as a spike beyond this many times its limit's distance from the median."""
_LOSS_FLOORS = (0.02, 0.01)
"""Least spread of the loss that is believed, as shares of its median and of the highest median there was."""
_NORM_FLOOR = 0.15
"""Least spread of the logarithm of a gradient norm that is believed."""
_BLOCK_MARGIN = 1.5
"""With many blocks one is always far out: their limit is wider."""


@dataclass(frozen=True, slots=True)
class _Signal:
    name: str
    policy: str
    reason: str
    clip_to: float | None = None


class StabilityGuard:
    """The guard of one training, on every rank. One thread; some ten microseconds a step."""

    def __init__(self, spec: StabilitySpec, ranks: int, advise: Advise) -> None:
        """Prepare with empty windows.

        Args:
            spec: Policies and limits.
            ranks: Ranks of the training, to say whether one can be slower than others.
            advise: Says what to change about the loading.
        """
        self._spec = spec
        self._ranks = ranks
        self._advise = advise
        self._losses = RecentValues(spec.window_steps)
        self._peak = 0.0
        self._high: deque[bool] = deque(maxlen=2)
        self._norms = RecentValues(spec.window_steps)
        self._blocks = BlockValues(spec.window_steps, _BLOCK_MARGIN * spec.spike_deviations, _NORM_FLOOR)
        self._speed = SpeedWatch(spec.window_steps, spec.slow_factor, spec.max_data_wait_fraction)
        self._actions = 0
        self._skipped_in_a_row = 0
        self._noted: dict[str, tuple[int, int]] = {}
        self._resting: dict[str, int] = {}

    # -- one step ----------------------------------------------------------------------------------------------------

    def observe(self, seen: Observation) -> Decision:
        """Judge a step before its update is made; one call a step."""
        self._speed.add(seen.step_times_s, seen.data_waits_s)
        signals = [signal for signal in self._signals(seen) if signal.policy != "ignore"]
        decision = self._decide(seen.step, signals) if signals else Decision()
        if decision.action not in _NOT_TAKEN and not seen.overflowed:
            self._skipped_in_a_row = 0
            self._take_in(seen)
        return decision

    def _signals(self, seen: Observation) -> Iterator[_Signal]:
        spec = self._spec
        if seen.loss_scale is not None and seen.loss_scale < 1:
            reason = (
                f"Overflows have driven the loss scale down to {seen.loss_scale:.3g}: fp16 cannot hold the gradients."
            )
            yield _Signal(SCALE_COLLAPSE, spec.on_scale_collapse, reason)
        broken = _not_finite(seen)
        if broken:
            policy = spec.on_not_finite
            yield _Signal(NOT_FINITE, "skip" if _SEVERITY[policy] < _SEVERITY["skip"] else policy, broken)
            return
        if seen.step > spec.warmup_steps:
            yield from self._spikes(seen)
            yield from self._speed_signals()

    def _spikes(self, seen: Observation) -> Iterator[_Signal]:
        spec = self._spec
        reason = self._loss_spike(seen.loss)
        if reason:
            yield _Signal(LOSS_SPIKE, spec.on_loss_spike, reason, self._usual_norm(seen))
        if not seen.overflowed:
            yield from self._gradient_spikes(seen)
        ratio = seen.update_ratio
        if ratio is not None and ratio > spec.max_update_ratio:
            reason = f"The last update moved the weights by {ratio:.2%} of their norm; {spec.max_update_ratio:.2%} is allowed."
            yield _Signal(UPDATE_RATIO, spec.on_update_ratio, reason, self._usual_norm(seen))

    def _usual_norm(self, seen: Observation) -> float:
        return math.exp(self._norms.median()) if len(self._norms) else seen.norms.total

    def _loss_spike(self, loss: float) -> str:
        """Return why the loss is a spike; empty when it is none."""
        if len(self._losses) < _LEAST_VALUES:
            return ""
        median = self._losses.median()
        of_median, of_peak = _LOSS_FLOORS
        spread = max(self._losses.spread(), of_median * abs(median), of_peak * self._peak)
        above = (loss - median) / spread if spread > 0 else (math.inf if loss > median else 0.0)
        is_high = above > self._spec.spike_deviations
        is_repeated = any(self._high)
        self._high.append(is_high)
        if not is_high or not (is_repeated or above > _FAR * self._spec.spike_deviations):
            return ""
        return f"The loss {loss:.4g} is {above:.0f} robust deviations above its recent median {median:.4g}."

    def _gradient_spikes(self, seen: Observation) -> Iterator[_Signal]:
        spec, total = self._spec, seen.norms.total
        if len(self._norms) < _LEAST_VALUES or total <= 0:
            return
        median = self._norms.median()
        limit = median + spec.spike_deviations * max(self._norms.spread(), _NORM_FLOOR)
        worst = self._blocks.worst(seen.norms.blocks) if len(self._blocks) >= _LEAST_VALUES else None
        where = f" Most of it is in {worst[0]} ({worst[1] / worst[2]:.0f} times)." if worst else ""
        usual = math.exp(median)
        if math.log(total) > limit:
            reason = f"The gradient norm {total:.4g} is {total / usual:.0f} times its recent median {usual:.4g}.{where}"
            yield _Signal(GRADIENT_SPIKE, spec.on_gradient_spike, reason, usual)
        elif worst:
            name, norm, block_usual = worst
            reason = f"The gradient norm of {name}, {norm:.4g}, is {norm / block_usual:.0f} times its recent median."
            yield _Signal(GRADIENT_SPIKE, spec.on_gradient_spike, reason, total * block_usual / norm)

    def _speed_signals(self) -> Iterator[_Signal]:
        spec = self._spec
        reason = self._speed.drop() or (self._speed.straggler() if self._ranks > 1 else "")
        if reason:
            yield _Signal(SLOW_STEP, spec.on_slow_step, reason)
        share = self._speed.waiting()
        if share:
            reason = self._advise(share) or f"{share:.0%} of the step time is spent waiting for data."
            yield _Signal(DATA_WAIT, spec.on_data_wait, reason)

    def _take_in(self, seen: Observation) -> None:
        # While an action is given time to help, losses that are still too high must not become the usual ones.
        if not (self._high and self._high[-1] and seen.step < self._resting.get(LOSS_SPIKE, 0)):
            self._losses.add(seen.loss)
        self._peak = max(self._peak, abs(self._losses.median()))
        if seen.norms.total > 0:
            self._norms.add(math.log(seen.norms.total))
        if seen.norms.blocks:
            self._blocks.add(seen.norms.blocks)

    # -- what is done ------------------------------------------------------------------------------------------------

    def _decide(self, step: int, signals: list[_Signal]) -> Decision:
        awake = [signal for signal in signals if step >= self._resting.get(signal.name, 0) or signal.policy == "note"]
        worst = max(awake, key=lambda signal: _SEVERITY[signal.policy], default=None)
        others = [signal for signal in awake if signal is not worst]
        notes = tuple((one.name, one.reason) for one in others if self._may_note(step, one.name))
        if worst is None or (worst.policy == "note" and not self._may_note(step, worst.name)):
            return Decision(notes=notes)
        action, reason = self._bounded(worst)
        if action in ("lower-lr", "raise-accumulation") or worst.name in _LASTING:
            self._resting[worst.name] = step + max(self._spec.window_steps // 4, _LEAST_VALUES)
        clip_to = worst.clip_to if action == "clip" else None
        return Decision(action=action, signal=worst.name, reason=reason, clip_to=clip_to, notes=notes)

    def _may_note(self, step: int, name: str) -> bool:
        """Tell whether a signal is to be noted again: after a window of steps, each time after twice as many."""
        last, times = self._noted.get(name, (0, 0))
        if times and step < last + self._spec.window_steps * 2 ** min(times - 1, 10):
            return False
        self._noted[name] = (step, times + 1)
        return True

    def _bounded(self, signal: _Signal) -> tuple[str, str]:
        """Return the action of a signal and its reason, as far as the attempts go."""
        action, reason, most = signal.policy, signal.reason, self._spec.max_actions
        if action == "skip":
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row <= most:
                return action, reason
            action, reason = "roll-back", f"{reason} Skipping {most} steps in a row did not help."
        self._skipped_in_a_row = 0
        if action not in _COUNTED:
            return action, reason
        if self._actions >= most:
            return "stop", f"{reason} {most} attempts to recover (the limit) did not help: the run is stopped."
        self._actions += 1
        return action, reason

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, as plain values for a checkpoint."""
        return {
            "losses": self._losses.values(),
            "peak": self._peak,
            "norms": self._norms.values(),
            "blocks": self._blocks.state_dict(),
            "speed": self._speed.state_dict(),
            "actions": self._actions,
            "noted": {name: list(when) for name, when in self._noted.items()},
            "high": list(self._high),
            "resting": dict(self._resting),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what was remembered then; the count of actions is never turned back."""
        size = self._spec.window_steps
        self._losses = RecentValues(size, state["losses"])
        self._peak = float(state["peak"])
        self._norms = RecentValues(size, state["norms"])
        self._blocks.load_state_dict(state["blocks"])
        self._speed.load(**state["speed"])
        self._actions = max(self._actions, int(state["actions"]))
        then = {str(name): (int(step), int(times)) for name, (step, times) in state["noted"].items()}
        self._noted = then | self._noted
        self._high = deque((bool(high) for high in state["high"]), maxlen=self._high.maxlen)
        self._resting = {str(name): int(step) for name, step in state["resting"].items()} | self._resting
        self._skipped_in_a_row = 0


def _not_finite(seen: Observation) -> str:
    """Return what is not finite; empty when all is, or when it is an overflow that the loss scale sees to."""
    if not math.isfinite(seen.loss):
        return f"The loss is {seen.loss}."
    if seen.overflowed or math.isfinite(seen.norms.total):
        return ""
    broken = [name for name, norm in seen.norms.blocks.items() if not math.isfinite(norm)]
    where = f", in {broken[0]}" if len(broken) == 1 else f", first in {broken[0]}" if broken else ""
    return f"The gradient norm is {seen.norms.total}{where}."


def make_guard(spec: StabilitySpec, ranks: int, advise: Advise = lambda _: "") -> Guard:
    """Return the guard of a training; for one that is to go unguarded it is not called.

    Args:
        spec: Policies and limits.
        ranks: Ranks of the training.
        advise: Returns what to change when this share of the time (0 to 1) is spent waiting for data; may be empty.
    """
    return StabilityGuard(spec, ranks, advise)
