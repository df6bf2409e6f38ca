"""What to change when the training waits for its data. No torch: the guard and the final log both ask here."""

from __future__ import annotations

import os

from core.train.specs.loading import LoadingSpec

NOTEWORTHY_FRACTION = 0.05
_LEAST_WAIT_S = 1.0
_ENOUGH_AHEAD = 8


class WaitTally:
    """How long a training has waited for its data; its first step, in which loading processes start, left out. Thread: one."""

    def __init__(self) -> None:
        self._has_begun = False
        self._waited_s = 0.0
        self._total_s = 0.0

    def add(self, waited_s: float, total_s: float) -> None:
        """Take in a step: seconds waited, and seconds of all of it."""
        if self._has_begun:
            self._waited_s += waited_s
            self._total_s += total_s
        self._has_begun = True

    def advice(self, loading: LoadingSpec, local_ranks: int) -> str:
        """Return ``loading_advice`` for the steps so far on this machine; empty where it was no second in all."""
        if self._waited_s < _LEAST_WAIT_S:
            return ""
        cores = (os.cpu_count() or 1) // max(1, local_ranks)
        return loading_advice(self._waited_s / self._total_s, loading, cores)


def loading_advice(wait_fraction: float, loading: LoadingSpec, cores: int) -> str:
    """Return a sentence or two on what to change; empty when waiting takes too little to matter.

    Args:
        wait_fraction: Share of the step time spent waiting for data, 0 to 1.
        loading: As the run is set.
        cores: Cores that a rank's loading processes may use: those of the machine over its ranks.
    """
    if wait_fraction < NOTEWORTHY_FRACTION:
        return ""
    return f"The training waits for data {wait_fraction:.0%} of the time. {_remedy(loading, cores)}"


def _remedy(loading: LoadingSpec, cores: int) -> str:
    own = loading.loading_processes
    if own == 0:
        wanted = max(1, min(4, cores - 1))
        return f"Set loading.loading_processes to {wanted}: batches are then prepared beside the training."
    if loading.stream:
        return (
            "A stream is read by one process: switch loading.stream off, so that the data are indexed (and text is "
            "tokenised) once and then read by several."
        )
    if own < cores - 1:
        return f"Raise loading.loading_processes from {own} to {cores - 1}, one for each core that is left."
    if loading.prefetch_batches < _ENOUGH_AHEAD:
        return (
            f"Raise loading.prefetch_batches from {loading.prefetch_batches} to {_ENOUGH_AHEAD} to even out slow batches; "
            "if that does not help, all cores are busy: make images smaller, or augment less."
        )
    return (
        "All cores are busy with loading: store images at the size they are trained at, augment less, or copy the data "
        "to a local disk."
    )
