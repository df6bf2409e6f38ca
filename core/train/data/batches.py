"""Micro-batches of a data rank, without end, from any position, whatever the number of ranks and loading processes.

Place ``i`` of the endless order (``core.train.data.order``) names a sample; the micro-batches of all data ranks cut that
order into consecutive pieces. A piece depends on its position alone, so accumulation may change in mid-run, and a position
is all that a checkpoint needs. Loading processes are torch's ``DataLoader``; what they prefetch is never lost, because only
what was handed out counts as used. Streams, which have no random access, are in ``core.train.data.streams``.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from core.contracts.errors import EnvironmentProblem, PilothouseError, UserError
from core.train.data.order import EpochOrder
from core.train.data.streams import StreamedSamples, StreamPlace, streamed_batches
from core.train.engine.contracts import Batch, Batches, DataPart, Mesh, SampleKey
from core.train.specs.loading import LoadingSpec

_DYING_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """A sentence on its way out of a loading process, where an exception would arrive as the text of its traceback."""

    kind: type[PilothouseError]
    message: str
    hint: str


class _CollatedSamples(Dataset[Any]):
    """Gives whole micro-batches, named by the keys of their samples."""

    def __init__(self, part: DataPart) -> None:
        self._part = part

    def __getitem__(self, keys: Sequence[SampleKey]) -> Batch | _Failure:
        try:
            return self._part.collate([self._part.samples[key] for key in keys])
        except PilothouseError as error:
            return _Failure(kind=type(error), message=error.message, hint=error.hint)


class _StreamedBatches(IterableDataset[Any]):
    """Gives the micro-batches of a stream, each with the place in the stream that follows it."""

    def __init__(self, part: DataPart, mesh: Mesh, micro_batch: int, first: StreamPlace) -> None:
        self._part = part
        self._share = (mesh.data_rank, mesh.data_size, micro_batch)
        self._first = first

    def __iter__(self) -> Iterator[tuple[Batch, StreamPlace] | _Failure]:
        try:
            yield from streamed_batches(self._part, self._share, self._first)
        except PilothouseError as error:
            yield _Failure(kind=type(error), message=error.message, hint=error.hint)


class _KeySampler(Sampler[list[SampleKey]]):
    """Yields the keys of one micro-batch of this rank after the other."""

    def __init__(self, order: EpochOrder, first: int, stride: int, micro_batch: int) -> None:
        self._order = order
        self._first = first
        self._stride = stride
        self._micro_batch = micro_batch

    def __iter__(self) -> Iterator[list[SampleKey]]:
        place = self._first
        while True:
            yield self._order.keys(place, self._micro_batch)
            place += self._stride


def _as_it_is(value: Any) -> Any:
    """Collate nothing: the data set gives whole micro-batches."""
    return value


@contextlib.contextmanager
def _keep_child_signal() -> Generator[None]:
    """Keep SIGCHLD as it was: torch would raise from its handler wherever the training is when a loading process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


class _Loading:
    """An iterator over what a ``DataLoader`` gives, with sentences instead of torch's errors.

    Args:
        dataset: Gives whole micro-batches.
        sampler: Keys of the micro-batches; None for a stream.
        processes: Loading processes.
        prefetch: Micro-batches that each of them keeps ready.
        rank: This rank, for the sentences.
    """

    def __init__(
        self, dataset: Dataset[Any], sampler: Sampler[Any] | None, *, processes: int, prefetch: int, rank: int
    ) -> None:
        self._rank = rank
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            collate_fn=_as_it_is,
            num_workers=processes,
            prefetch_factor=prefetch if processes else None,
            # Without a generator of its own the loader would draw from the global one, and so change the model's dropout.
            generator=torch.Generator().manual_seed(0),
        )
        with _keep_child_signal():
            self._iterator = iter(loader)

    def take(self) -> Any:
        """Return the next piece; waits for it."""
        try:
            found = next(self._iterator)
        except (RuntimeError, OSError, EOFError) as error:
            # Torch tells of a process it missed; one that dies while it hands a batch over breaks the connection instead.
            if "DataLoader worker" not in str(error) and not self._has_dead_process():
                raise
            raise EnvironmentProblem(
                f"A loading process of rank {self._rank} was ended from outside ({_first_line(error)}).",
                "As a rule memory ran out: use fewer loading processes or smaller batches, or enlarge /dev/shm.",
            ) from error
        if isinstance(found, _Failure):
            raise found.kind(found.message, found.hint)
        return found

    def _has_dead_process(self) -> bool:
        # A process that is just dying still counts as alive while its last thread ends.
        sentinels = [process.sentinel for process in getattr(self._iterator, "_workers", ())]
        return bool(sentinels and wait(sentinels, timeout=_DYING_S))

    def end(self) -> None:
        """End the loading processes now; dropping the iterator would leave it to the garbage collector."""
        shut_down = getattr(self._iterator, "_shutdown_workers", None)
        if shut_down:
            shut_down()


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


class _Waiting(ABC):
    """What both kinds of batches share: the loading processes and the time spent waiting for them."""

    def __init__(self, mesh: Mesh, loading: LoadingSpec) -> None:
        self._mesh = mesh
        self._spec = loading
        self._loading: _Loading | None = None
        self.last_wait_s = 0.0

    @abstractmethod
    def _start(self) -> _Loading:
        """Begin to load from where the position is."""

    def _take(self, number: int) -> list[Any]:
        began = time.perf_counter()
        loading = self._loading = self._loading or self._start()
        found = [loading.take() for _ in range(number)]
        self.last_wait_s = time.perf_counter() - began
        return found

    def close(self) -> None:
        """End the loading processes."""
        if self._loading:
            self._loading.end()
        self._loading = None


class IndexedBatches(_Waiting):
    """``Batches`` of a part with random access; see the module.

    Attributes:
        position: Samples used by all data ranks together.
    """

    def __init__(
        self, part: DataPart, mesh: Mesh, *, micro_batch: int, seed: int, loading: LoadingSpec, grad_accum_steps: int
    ) -> None:
        super().__init__(mesh, loading)
        self._part = part
        self._micro_batch = micro_batch
        self._chunk = micro_batch * mesh.data_size
        self._order = EpochOrder(len(part.samples), seed)
        self._seed = seed
        self.position = 0
        self.steps_per_epoch = self._order.count / (self._chunk * grad_accum_steps)

    def _start(self) -> _Loading:
        first = self.position + self._mesh.data_rank * self._micro_batch
        return _Loading(
            _CollatedSamples(self._part),
            _KeySampler(self._order, first, self._chunk, self._micro_batch),
            processes=self._spec.loading_processes,
            prefetch=self._spec.prefetch_batches,
            rank=self._mesh.rank,
        )

    def next_step(self, micro_batches: int) -> list[Batch]:
        """Return this rank's micro-batches of the next step.

        Raises:
            UserError: A sample cannot be read or decoded.
            EnvironmentProblem: A loading process was killed.
        """
        found = self._take(micro_batches)
        self.position += micro_batches * self._chunk
        return found

    def skip(self, micro_batches: int) -> None:
        """Leave out the samples of one step; loading begins anew behind them."""
        self.position += micro_batches * self._chunk
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the position; the number of samples and the seed tell whether it is of the same order."""
        return {"position": self.position, "samples": self._order.count, "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position.

        Raises:
            UserError: The position is of another data set or another order.
        """
        if "position" not in state:
            raise UserError("The checkpoint was made while streaming.", "Switch stream on, or start from its weights.")
        found, own = (state.get("samples"), state.get("seed")), (self._order.count, self._seed)
        if found != own:
            raise UserError(
                f"The checkpoint is of {found[0]} samples in the order of seed {found[1]}; these are {own[0]} with seed {own[1]}.",
                "Use the same data and seed, or start a new run from its weights.",
            )
        self.position = int(state["position"])
        self.close()

    def epoch(self) -> float:
        """Return how many epochs have been used."""
        return self.position / self._order.count


class StreamBatches(_Waiting):
    """``Batches`` of a stream. One loading process reads it, since a stream is one row; 0 reads it in the training.

    Attributes:
        steps_per_epoch: 0: the length of a stream is not known.
    """

    steps_per_epoch = 0.0

    def __init__(self, part: DataPart, mesh: Mesh, *, micro_batch: int, loading: LoadingSpec) -> None:
        super().__init__(mesh, loading)
        self._part = part
        self._micro_batch = micro_batch
        self._place = StreamPlace()

    def _start(self) -> _Loading:
        return _Loading(
            _StreamedBatches(self._part, self._mesh, self._micro_batch, self._place),
            None,
            processes=min(1, self._spec.loading_processes),
            prefetch=self._spec.prefetch_batches,
            rank=self._mesh.rank,
        )

    def next_step(self, micro_batches: int) -> list[Batch]:
        """Return this rank's micro-batches of the next step.

        Raises:
            UserError: A record cannot be read or decoded, or the stream is empty.
            EnvironmentProblem: The loading process was killed, or the source does not answer.
        """
        found: list[tuple[Batch, StreamPlace]] = self._take(micro_batches)
        self._place = found[-1][1]
        return [batch for batch, _ in found]

    def skip(self, micro_batches: int) -> None:
        """Leave out the samples of one step; they are read, since a stream has no other way past them."""
        self.next_step(micro_batches)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the stream, the same on every rank."""
        return {"stream": self._place.as_values()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a place.

        Raises:
            UserError: The checkpoint was made without streaming.
        """
        if "stream" not in state:
            raise UserError(
                "The checkpoint was made without streaming.", "Switch stream off, or start from its weights."
            )
        self._place = StreamPlace.from_values(state["stream"])
        self.close()

    def epoch(self) -> float:
        """Return how many epochs have been used: whole ones, since the length of a stream is not known."""
        return float(self._place.epoch)


def make_batches(
    part: DataPart, mesh: Mesh, *, micro_batch: int, seed: int, loading: LoadingSpec, grad_accum_steps: int = 1
) -> Batches:
    """Return this data rank's micro-batches, from the first sample on.

    Args:
        part: What to load; a stream where its samples are ``StreamedSamples``.
        mesh: Where this rank stands.
        micro_batch: Samples per micro-batch.
        seed: Fixes the order.
        loading: Loading processes and their lead.
        grad_accum_steps: Micro-batches per rank and step, for ``steps_per_epoch``.

    Raises:
        UserError: The part is empty.
    """
    if isinstance(part.samples, StreamedSamples):
        return StreamBatches(part, mesh, micro_batch=micro_batch, loading=loading)
    if len(part.samples) == 0:
        raise UserError("The training part of the data is empty.", "Add data or lower the share held out.")
    return IndexedBatches(
        part, mesh, micro_batch=micro_batch, seed=seed, loading=loading, grad_accum_steps=grad_accum_steps
    )


def validation_batches(part: DataPart, mesh: Mesh, micro_batch: int) -> Iterator[tuple[Batch, bool]]:
    """Yield this data rank's share of a part in its order, the same number of batches on every data rank.

    Batch ``i`` of the part goes to data rank ``i % data_size``. A rank that runs out repeats the part's first batch.

    Yields:
        The batch, and whether it is to be scored; False marks a repetition that keeps collectives in step.
    """
    count = len(part.samples)
    number = -(-count // micro_batch)
    for turn in range(-(-number // mesh.data_size)):
        index = turn * mesh.data_size + mesh.data_rank
        first = index * micro_batch if index < number else 0
        rows = range(first, min(first + micro_batch, count))
        yield part.collate([part.samples[SampleKey(row, 0)] for row in rows]), index < number
