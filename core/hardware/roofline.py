"""Measures this machine's peak fp32 arithmetic and memory bandwidth, the ceilings of the roofline model.

The C++ probe does it where it can be built; else numpy does, and the result says so. ``fma_checksum`` and
``triad_checksum`` are the twins of the probe's kernels, equal to them bit for bit: they prove that both compute the same.
Takes some seconds of all cores; figures are of this moment, and a busy machine gives lower ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from core.contracts.telemetry import Roofline
from core.hardware.cpu import cpu_info
from core.hardware.limits import control_group, read_text
from core.hardware.native import NativeProbe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ARRAY_BYTES_LIMIT = 512 << 20
CACHE_MULTIPLE = 4
"""An array of STREAM is at least four times the last cache."""

_ROUNDS = 3
_FIRST_ITERATIONS = 200_000
_MATRIX = 1024
_BLOCK = 1 << 14
_SCALE = 0.5
_CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def measure_roofline(
    *,
    threads: int | None = None,
    array_bytes: int | None = None,
    kernel_s: float = 0.3,
    probe: NativeProbe | None = None,
) -> Roofline:
    """Measure both ceilings. Thread: a worker's, for some seconds; never raises but for a lack of memory.

    Args:
        threads: Threads to use; all usable cores by default.
        array_bytes: Size of each of three arrays; by default four times the last cache, at most ``ARRAY_BYTES_LIMIT``
            and a twelfth of the available memory.
        kernel_s: How long the arithmetic runs per round, in seconds.
        probe: The C++ probe; found or built by default.
    """
    workers = threads or max(1, int(cpu_info(control_group().quota_cores).usable_cores))
    cache = last_cache_bytes()
    size = array_bytes or _array_bytes(cache)
    native = probe or NativeProbe.find()
    measured = _measure_native(native, workers, size, kernel_s)
    notes: list[str] = []
    engine = "native" if measured else "numpy"
    if measured is None:
        notes.append(native.reason or "The C++ probe did not run.")
        notes.append(
            "Measured with numpy: a matrix product for the arithmetic, which reaches somewhat less than the peak."
        )
        measured = _measure_numpy(workers, size, kernel_s)
    if cache is not None and size < CACHE_MULTIPLE * cache:
        notes.append(
            "The arrays are less than four times the last cache, so part of the traffic may have stayed in it."
        )
    return Roofline(
        peak_fp32_flop_per_s=measured[0],
        bandwidth_bytes_per_s=measured[1],
        threads=workers,
        array_bytes=size,
        cache_bytes=cache,
        engine=engine,
        note=" ".join(notes),
    )


def last_cache_bytes(folder: Path = _CACHE_FOLDER) -> int | None:
    """Return the size of the last-level cache of the first core; None where the system does not tell."""
    sizes: list[int] = []
    for file in folder.glob("index*/size"):
        text = read_text(file).strip()
        if text[:-1].isdigit() and text[-1] in _SUFFIXES:
            sizes.append(int(text[:-1]) * _SUFFIXES[text[-1]])
    return max(sizes, default=None)


def _array_bytes(cache: int | None) -> int:
    wanted = CACHE_MULTIPLE * (cache or 32 << 20)
    return max(1 << 20, min(wanted, ARRAY_BYTES_LIMIT, psutil.virtual_memory().available // 12))


def _measure_native(probe: NativeProbe, threads: int, size: int, kernel_s: float) -> tuple[float, float] | None:
    first = probe.measure("fma", threads, _FIRST_ITERATIONS)
    if first is None:
        return None
    iterations = max(_FIRST_ITERATIONS, int(_FIRST_ITERATIONS * kernel_s / max(first["seconds"], 1e-6)))
    rates = [line["per_s"] for line in (probe.measure("fma", threads, iterations) for _ in range(_ROUNDS)) if line]
    triad = probe.measure("triad", threads, size // 8)
    return (max(rates), float(triad["per_s"])) if rates and triad else None


def _measure_numpy(threads: int, size: int, kernel_s: float) -> tuple[float, float]:
    import numpy as np
    from threadpoolctl import threadpool_limits

    generator = np.random.default_rng(0)
    left = generator.random((_MATRIX, _MATRIX), dtype=np.float32)
    outs = [np.empty_like(left) for _ in range(threads)]
    u, v, y = _triad_arrays(size // 8)

    def product(worker: int) -> None:
        np.matmul(left, left, out=outs[worker])

    def triad(worker: int) -> None:
        begin, end = len(y) * worker // threads, len(y) * (worker + 1) // threads
        _triad(u[begin:end], v[begin:end], y[begin:end])

    # Each of our threads multiplies alone: the library's own threads would fight over the cores.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        product_s = _best_s(pool, product, threads, kernel_s)
        triad_s = _best_s(pool, triad, threads, kernel_s)
    return 2.0 * _MATRIX**3 * threads / product_s, 3.0 * y.nbytes / triad_s


def _best_s(pool: ThreadPoolExecutor, work: Callable[[int], None], threads: int, least_s: float) -> float:
    """Return the shortest time in which all threads did their work once, over at least ``_ROUNDS`` and ``least_s``."""
    best, rounds, end = float("inf"), 0, time.perf_counter() + least_s
    while rounds < _ROUNDS or time.perf_counter() < end:
        begin = time.perf_counter()
        list(pool.map(work, range(threads)))
        best = min(best, time.perf_counter() - begin)
        rounds += 1
    return best


def _triad_arrays(elements: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    index = np.arange(elements)
    return (index % 1013) / 3.0, (index % 509) / 7.0, np.zeros(elements)


def _triad(u: NDArray[np.float64], v: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Compute ``y = u + 0.5 * v`` in blocks that stay in a core's own cache, so that each array moves once."""
    import numpy as np

    for begin in range(0, len(y), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        np.multiply(v[block], _SCALE, out=y[block])
        np.add(y[block], u[block], out=y[block])


def triad_checksum(elements: int) -> int:
    """Return the sum of the bit patterns of the triad's result, modulo 2^64, as the C++ probe prints it."""
    import numpy as np

    u, v, y = _triad_arrays(elements)
    _triad(u, v, y)
    return int(y.view(np.uint64).sum(dtype=np.uint64))


def fma_checksum(lanes: int, vector_lanes: int, iterations: int) -> int:
    """Return the sum of the bit patterns of ``lanes`` fp32 values after ``x = x * -0.5 + b``, as the C++ probe prints it.

    Args:
        lanes: Number of values.
        vector_lanes: Values per vector of the machine; ``b`` repeats with this period.
        iterations: How often the step is done.
    """
    import numpy as np

    x = np.arange(lanes, dtype=np.float32) / np.float32(3)
    b = np.float32(1) + (np.arange(lanes) % vector_lanes).astype(np.float32) / np.float32(7)
    for _ in range(iterations):
        x = x * np.float32(-0.5) + b
    return int(x.view(np.uint32).sum(dtype=np.uint64))
