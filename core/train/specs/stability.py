"""What the stability guard looks for, and what it does about it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Stability guard"
_GUARDED = {"field": "stability.guard", "in": [True]}

Policy = Literal["ignore", "note", "clip", "skip", "lower-lr", "raise-accumulation", "roll-back", "pause", "stop"]


def _policy(title: str, description: str) -> Meta:
    return Meta(
        title=title, description=description, extra_json_schema=extra(_SECTION, advanced=True, shown_if=_GUARDED)
    )


def _number(title: str, description: str, *, ge: float, le: float, unit: str = "") -> Meta:
    return Meta(
        title=title,
        description=description,
        ge=ge,
        le=le,
        extra_json_schema=extra(_SECTION, unit, advanced=True, shown_if=_GUARDED),
    )


class StabilitySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guard's switches. A policy names what is done when its signal is seen; each act is an event with its reason."""

    guard: Annotated[
        bool,
        Meta(
            title="Stability guard",
            description="Watches loss, gradients, updates and speed at each step, and acts by the policies below.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = True
    on_not_finite: Annotated[
        Policy,
        _policy("Loss or gradient not finite", "A loss or gradient is NaN or infinite; the step is never taken."),
    ] = "skip"
    on_loss_spike: Annotated[
        Policy, _policy("Loss spike", "The loss leaves its recent values by more than the spike threshold.")
    ] = "roll-back"
    on_gradient_spike: Annotated[
        Policy, _policy("Gradient spike", "The gradient norm leaves its recent values, in all or in one block.")
    ] = "clip"
    on_update_ratio: Annotated[
        Policy, _policy("Large update", "A step moves the weights by more than the allowed share of their norm.")
    ] = "note"
    on_scale_collapse: Annotated[
        Policy, _policy("Loss scale collapse", "fp16: overflows have driven the loss scale below 1.")
    ] = "stop"
    on_slow_step: Annotated[
        Policy, _policy("Throughput drop", "Steps take much longer than they did; the slowest rank is named.")
    ] = "note"
    on_data_wait: Annotated[Policy, _policy("Waits for data", "Loading takes a large share of the step time.")] = "note"
    window_steps: Annotated[
        int, _number("Window", "Recent steps that a value is compared with.", ge=8, le=10_000, unit="steps")
    ] = 64
    warmup_steps: Annotated[
        int, _number("Quiet steps", "No spike is called in the first steps.", ge=0, le=10**6, unit="steps")
    ] = 16
    spike_deviations: Annotated[
        float,
        _number("Spike threshold", "Robust standard deviations (median and MAD) above the median.", ge=2, le=1000),
    ] = 8.0
    max_update_ratio: Annotated[
        float, _number("Largest update", "Norm of a step's update over the norm of the weights.", ge=1e-6, le=10)
    ] = 0.1
    slow_factor: Annotated[
        float, _number("Slow step", "Step time over its median that counts as slow.", ge=1.1, le=1000)
    ] = 3.0
    max_data_wait_fraction: Annotated[
        float, _number("Data wait", "Share of the time of recent steps spent waiting for data.", ge=0.01, le=1)
    ] = 0.3
    lr_factor: Annotated[
        float, _number("Learning rate factor", "What lower-lr multiplies the learning rate by.", ge=0.01, le=0.99)
    ] = 0.5
    max_actions: Annotated[
        int,
        _number(
            "Attempts",
            "Roll-backs, lowered rates and raised accumulations before the run is stopped; as many steps skipped in a row "
            "become a roll-back.",
            ge=1,
            le=1000,
        ),
    ] = 5
