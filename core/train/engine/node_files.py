"""The files of a checkpoint between nodes that share no disk: gathered on rank 0's, and sent back for a resume.

Whether nodes share the run's disk is found by trying: rank 0 writes a probe, the others look for it.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import torch
import torch.distributed as dist

from core.contracts.worker import RunContext
from core.train.engine.agreement import Agreement
from core.train.engine.contracts import Mesh

_BLOCK_BYTES = 64 << 20


class NodeFiles:
    """Moves checkpoint files between nodes. In one process, or on one disk, nothing moves.

    Args:
        context: The run.
        mesh: Where this rank stands.
        agreement: Exchanges on the main thread.
        group: The gloo group of the background thread.
    """

    def __init__(self, context: RunContext, mesh: Mesh, agreement: Agreement, group: dist.ProcessGroup | None) -> None:
        self._context = context
        self._mesh = mesh
        self._agreement = agreement
        self._group = group
        self._far_ranks = self._find_far_ranks()

    def _find_far_ranks(self) -> tuple[int, ...]:
        """Return the ranks that do not see rank 0's files."""
        if not self._mesh.is_distributed:
            return ()
        name = self._agreement.broadcast(f"probe-{uuid.uuid4().hex}")
        probe = self._context.scratch_dir / name
        if self._mesh.is_main:
            probe.touch()
        self._agreement.gather([0.0])
        seen = self._agreement.gather([float(probe.exists())])
        if self._mesh.is_main:
            probe.unlink()
        return tuple(rank for rank, (found,) in enumerate(seen) if not found)

    @property
    def are_shared(self) -> bool:
        """True when every rank sees rank 0's files."""
        return not self._far_ranks

    def collect(self, folder: Path) -> None:
        """Send what the far ranks wrote into ``folder`` to rank 0. Thread: the background one, on every rank."""
        for rank in self._far_ranks:
            if self._mesh.rank == rank:
                self._send(sorted(folder.glob(f"__{rank}_*")) + sorted(folder.glob(f"rank-{rank:05d}.pt")))
            elif self._mesh.is_main:
                self._receive(folder, rank)

    def clear(self, folder: Path) -> None:
        """Remove a far rank's own copies once rank 0 has them."""
        if self._mesh.rank in self._far_ranks:
            shutil.rmtree(folder, ignore_errors=True)

    def _send(self, paths: list[Path]) -> None:
        sizes = [(path.name, path.stat().st_size) for path in paths]
        dist.send_object_list([sizes], dst=0, group=self._group)
        for path in paths:
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    dist.send(torch.frombuffer(bytearray(block), dtype=torch.uint8), dst=0, group=self._group)

    def _receive(self, folder: Path, rank: int) -> None:
        held: list[list[tuple[str, int]]] = [[]]
        dist.recv_object_list(held, src=rank, group=self._group)
        problem: OSError | None = None
        for name, size in held[0]:
            for start in range(0, size, _BLOCK_BYTES):
                block = torch.empty(min(_BLOCK_BYTES, size - start), dtype=torch.uint8)
                dist.recv(block, src=rank, group=self._group)
                try:
                    with (folder / Path(name).name).open("ab") as file:
                        file.write(block.numpy().data)
                except OSError as error:
                    # The rest is taken all the same: the sender must not be left waiting.
                    problem = error
        if problem is not None:
            raise problem

    def localize(self, folder: Path) -> Path:
        """Return where this rank finds rank 0's ``folder``: there, or in a copy that is sent now; on every rank.

        The copy is in the run's scratch folder, named as the checkpoint is.
        """
        if not self._agreement.any(not folder.is_dir()):
            return folder
        local = folder if self._mesh.is_main else self._context.scratch_dir / f"received-{folder.name}"
        listed: list[tuple[str, int]] = []
        if self._mesh.is_main:
            listed = [(p.name, p.stat().st_size) for p in sorted(folder.iterdir()) if p.is_file()]
        listed = self._agreement.broadcast(listed)
        is_writer = self._is_first_on_its_disk(local)
        if is_writer:
            shutil.rmtree(local, ignore_errors=True)
            local.mkdir(parents=True)
        for name, size in listed:
            self._broadcast_file(local / name, size, is_writer=is_writer)
        self._agreement.gather([0.0])
        return local

    def _is_first_on_its_disk(self, local: Path) -> bool:
        """Tell whether this is the lowest rank of those that would write the same copy (other than rank 0)."""
        places = self._agreement.gather_objects((self._context.node, str(local)))
        return not self._mesh.is_main and places.index((self._context.node, str(local))) == self._mesh.rank

    def _broadcast_file(self, path: Path, size: int, *, is_writer: bool) -> None:
        file = path.open("rb" if self._mesh.is_main else "wb") if self._mesh.is_main or is_writer else None
        try:
            for start in range(0, size, _BLOCK_BYTES):
                block = torch.empty(min(_BLOCK_BYTES, size - start), dtype=torch.uint8)
                if self._mesh.is_main and file is not None:
                    file.readinto(block.numpy().data)  # pyright: ignore[reportAttributeAccessIssue]
                dist.broadcast(block, src=0, group=self._group)
                if is_writer and file is not None:
                    file.write(block.numpy().data)
        finally:
            if file is not None:
                file.close()
