"""Streams: records read shard by shard as they are needed, shuffled in blocks, with exact resume on any number of ranks.

An epoch visits its shards in an order drawn from (seed, epoch). Its records are cut into blocks of ``buffer`` records, and
each block is shuffled by itself, drawn from (seed, epoch, block). So a place in the stream is four numbers, and going on
from it reads one block again at most; a sliding shuffle buffer, as the ``datasets`` library has, cannot be resumed exactly.

Every data rank reads all records and decodes its own alone: the samples of a step are the same for every layout. Where many
ranks read a slow source, index the data instead of streaming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from core.contracts.errors import UserError
from core.train.engine.contracts import Batch, DataPart, SampleKey

Share = tuple[int, int, int]
"""Data rank, number of data ranks, samples per micro-batch."""


class Records(Protocol):
    """Records in shards. Picklable, for loading processes."""

    @property
    def num_shards(self) -> int:
        """Return the number of shards."""
        ...

    def read(self, shard: int, first: int) -> Iterator[Any]:
        """Yield the records of a shard from record ``first`` on; raises UserError or EnvironmentProblem."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlace:
    """A place in a stream.

    Attributes:
        epoch: Whole passes before it.
        shard: Place in the epoch's order of shards where the block begins.
        record: Record of that shard where the block begins.
        used: Samples of the block that have been used.
    """

    epoch: int = 0
    shard: int = 0
    record: int = 0
    used: int = 0

    def as_values(self) -> list[int]:
        """Return the place as plain values."""
        return [self.epoch, self.shard, self.record, self.used]

    @classmethod
    def from_values(cls, values: Sequence[int]) -> StreamPlace:
        """Return the place that ``as_values`` told."""
        epoch, shard, record, used = values
        return cls(epoch=epoch, shard=shard, record=record, used=used)


def _unchanged(records: list[Any]) -> Iterator[Any]:
    yield from records


class StreamedSamples:
    """The samples of a stream; stands in a ``DataPart`` for samples with random access.

    Args:
        records: Where they come from.
        decode: Makes a sample of an item; called for a rank's own items only.
        seed: Fixes the order.
        buffer: Records per shuffled block.
        expand: Makes items of the shuffled records of a block, such as packed rows of several documents.
    """

    def __init__(
        self,
        records: Records,
        decode: Callable[[Any], Any],
        *,
        seed: int,
        buffer: int,
        expand: Callable[[list[Any]], Iterator[Any]] = _unchanged,
    ) -> None:
        self._records = records
        self.decode = decode
        self._seed = seed
        self._buffer = buffer
        self._expand = expand

    def __len__(self) -> int:
        raise TypeError("the length of a stream is not known")

    def __getitem__(self, key: SampleKey) -> Any:
        raise TypeError("a stream has no random access")

    def items(self, place: StreamPlace) -> Iterator[tuple[Any, StreamPlace]]:
        """Yield the items from a place on, each with the place behind it, epoch after epoch without end.

        Raises:
            UserError: A whole epoch without any item, or a record that cannot be read.
        """
        while True:
            found = 0
            whole = place.shard == place.record == place.used == 0
            for item, following in self._epoch(place):
                found += 1
                yield item, following
            if whole and not found:
                raise UserError("The streamed data are empty.", "Choose data with at least one record.")
            place = StreamPlace(epoch=place.epoch + 1)

    def _epoch(self, place: StreamPlace) -> Iterator[tuple[Any, StreamPlace]]:
        for (shard, record), block in self._blocks(place):
            rng = np.random.default_rng((self._seed, place.epoch, shard, record))
            shuffled = [block[index] for index in rng.permutation(len(block))]
            used_before = place.used if (shard, record) == (place.shard, place.record) else 0
            for used, item in enumerate(self._expand(shuffled), start=1):
                if used > used_before:
                    yield item, StreamPlace(epoch=place.epoch, shard=shard, record=record, used=used)

    def _blocks(self, place: StreamPlace) -> Iterator[tuple[tuple[int, int], list[Any]]]:
        """Yield the blocks of the rest of an epoch with where they begin."""
        order = np.random.default_rng((self._seed, place.epoch)).permutation(self._records.num_shards)
        block: list[Any] = []
        begin = (place.shard, place.record)
        for turn in range(place.shard, len(order)):
            first = place.record if turn == place.shard else 0
            for number, record in enumerate(self._records.read(int(order[turn]), first), start=first):
                if not block:
                    begin = (turn, number)
                block.append(record)
                if len(block) == self._buffer:
                    yield begin, block
                    block = []
        if block:
            yield begin, block


def streamed_batches(part: DataPart, share: Share, first: StreamPlace) -> Iterator[tuple[Batch, StreamPlace]]:
    """Yield a data rank's micro-batches of a stream from a place on, each with the place behind all ranks' micro-batch."""
    rank, ranks, micro_batch = share
    samples = part.samples
    assert isinstance(samples, StreamedSamples)
    own = range(rank * micro_batch, (rank + 1) * micro_batch)
    chosen: list[Any] = []
    for number, (item, place) in enumerate(samples.items(first)):
        within = number % (micro_batch * ranks)
        if within in own:
            chosen.append(samples.decode(item))
        if within == micro_batch * ranks - 1:
            yield part.collate(chosen), place
            chosen = []
