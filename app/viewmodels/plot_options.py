"""How curves are shown, as one frozen record that the tool bar changes and every chart of a board obeys."""

from __future__ import annotations

from dataclasses import dataclass

from app.viewmodels.metric_series import Axis


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotOptions:
    """Choices that all charts of a board share.

    Attributes:
        smoothing: Weight of the past in the debiased moving average; 0 switches it off.
        clips_outliers: Scale the vertical axis to the inner 98 % of the points in view.
        shows_markers: Draw checkpoints, restarts and stability events.
    """

    axis: Axis = Axis.STEP
    smoothing: float = 0.0
    log_x: bool = False
    log_y: bool = False
    clips_outliers: bool = False
    shows_markers: bool = True
