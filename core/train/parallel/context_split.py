"""Context parallel: which ranks have which slices of a sequence.

A row is cut into two slices for each rank, and rank ``r`` of ``n`` has slices ``r`` and ``2n - 1 - r``: an early and a
late one, since under the causal mask a late slice costs more ("head-tail" balance, as in Llama 3 training, Dubey et al.,
2024). Importing this module imports torch.
"""

from __future__ import annotations

import torch
from torch import distributed as dist

from core.contracts.errors import UserError
from core.train.engine.contracts import Batch


class ContextSplit:
    """Cuts batches along the sequence for this rank, and puts outputs together again.

    Attributes:
        group: The ranks that share a sequence.
        rank, size: This rank's place among them.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        """Take the ranks that share a sequence."""
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def places(self, length: int, rank: int | None = None) -> torch.Tensor:
        """Return which positions of a row of ``length`` a rank has, int64 (length / size), on the CPU."""
        rank = self.rank if rank is None else rank
        width, rest = divmod(length, 2 * self.size)
        if rest:
            raise UserError(
                f"Sequences of {length} tokens cannot be shared out over {self.size} context ranks.",
                f"Make the length a multiple of {2 * self.size}.",
            )
        late = 2 * self.size - 1 - rank
        return torch.cat([torch.arange(start * width, (start + 1) * width) for start in (rank, late)])

    def natural_order(self, length: int) -> torch.Tensor:
        """Return where each position of a row stands when the ranks' slices are put one after another."""
        return torch.cat([self.places(length, rank) for rank in range(self.size)]).argsort()

    def split(self, batch: Batch) -> Batch:
        """Return this rank's slices of a batch; ``position_ids`` are added where they are implied."""
        ids = batch["input_ids"]
        length = ids.shape[1]
        places = self.places(length).to(ids.device)
        batch = {"position_ids": torch.arange(length, device=ids.device).expand_as(ids), **batch}
        return {
            key: tensor[:, places] if tensor.dim() > 1 and tensor.shape[1] == length else tensor
            for key, tensor in batch.items()
        }

    def join(self, output: torch.Tensor) -> torch.Tensor:
        """Return the whole output (batch, length, ...) from the slices of all ranks; without gradients."""
        pieces = [torch.empty_like(output) for _ in range(self.size)]
        dist.all_gather(pieces, output.contiguous(), group=self.group)
        order = self.natural_order(output.shape[1] * self.size).to(output.device)
        return torch.cat(pieces, dim=1)[:, order]
