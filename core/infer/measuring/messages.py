"""What the benchmark asks a measuring process, and what it answers: one JSON line each way.

The process loads one model and then does what it is told, so that the benchmark can interleave its bursts with others'.
"""

from __future__ import annotations

import msgspec

from core.infer.backend import Precision


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all requests."""


class LoadRequest(Request, frozen=True, kw_only=True, tag="load"):
    """Load a model and the test samples. ``sample`` is the index of the one that latencies are timed on."""

    backend: str
    precision: Precision
    model: str
    threads: int
    test_data: str
    sample: int


class ScoreRequest(Request, frozen=True, kw_only=True, tag="score"):
    """Classify all test samples."""

    batch: int


class WarmRequest(Request, frozen=True, kw_only=True, tag="warm"):
    """Run single samples until the median of a window no longer moves, at most ``limit_s``."""

    limit_s: float


class BurstRequest(Request, frozen=True, kw_only=True, tag="burst"):
    """Run up to ``calls`` inferences of ``batch`` samples back to back, at most about ``limit_s``."""

    batch: int
    calls: int
    limit_s: float


AnyRequest = LoadRequest | ScoreRequest | WarmRequest | BurstRequest


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all answers."""


class Loaded(Answer, frozen=True, kw_only=True, tag="loaded"):
    """The model is loaded.

    Attributes:
        import_s: Seconds to import the library; ``load_s`` to load the model, ``first_s`` for the first inference.
        executed: Arithmetic of most layers, read back; ``int8_layers`` of ``layers`` compute in INT8.
    """

    version: str
    import_s: float
    load_s: float
    first_s: float
    executed: Precision
    int8_layers: int
    layers: int


class Scored(Answer, frozen=True, kw_only=True, tag="scored"):
    """How many test samples were classified rightly."""

    correct: int
    samples: int


class Warmed(Answer, frozen=True, kw_only=True, tag="warmed"):
    """How many inferences the warm-up took, and whether it settled."""

    calls: int
    is_settled: bool


class Burst(Answer, frozen=True, kw_only=True, tag="burst"):
    """What one burst took.

    Attributes:
        wall_ns: Wall time of each call.
        cpu_ns: CPU time of the process over the whole burst, all threads; ``total_ns`` is the burst's wall time.
        peak_rss_bytes: Largest resident memory of the process so far; None where the system does not tell.
    """

    wall_ns: list[int]
    cpu_ns: int
    total_ns: int
    peak_rss_bytes: int | None


class Refused(Answer, frozen=True, kw_only=True, tag="refused"):
    """The request cannot be done; ``is_environment`` tells whose turn it is."""

    message: str
    hint: str
    is_environment: bool


AnyAnswer = Loaded | Scored | Warmed | Burst | Refused
