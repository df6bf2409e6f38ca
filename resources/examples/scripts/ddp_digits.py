"""Trains a small network on scikit-learn's handwritten digits with DistributedDataParallel, on any number of ranks and hosts.

Started by torchrun. Rank 0 writes a checkpoint every few steps and at a stop; started again, it loads the newest one and
hands it to the others, and the losses go on as if nothing had happened. ``pilothouse_emit`` is put beside the script by
Pilothouse.
"""

import argparse
import os
import pickle
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pilothouse_emit
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

KEPT = 2


class StopRequest:
    """Set by SIGTERM; looked at after every step."""

    asked = False

    def note(self, *_: object) -> None:
        """Remember it; a step is never cut off."""
        self.asked = True


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint under a temporary name, rename it, and remove older ones."""
    partial, final = folder / ".partial", folder / f"step-{step:08d}.pt"
    with partial.open("wb") as file:
        torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(final)
    pilothouse_emit.checkpoint(step, final)
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.unlink()
        pilothouse_emit.checkpoint(int(old.stem.removeprefix("step-")), old)


def newest(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint that can be read."""
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            print(f"{path} is passed over: {error}")
    return None


def resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """Give every rank the state that rank 0 finds; return the step after which it was saved, 0 when there is none."""
    found: list[dict[str, Any] | None] = [newest(folder) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found, device=device)
    state = found[0]
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def batch_of(step: int, size: int, seed: int, length: int) -> torch.Tensor:
    """Return the indices of a step's whole batch, the same on every rank."""
    steps_per_epoch = length // size
    epoch, place = divmod(step - 1, steps_per_epoch)
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
    return order[place * size : (place + 1) * size]


def train(options: argparse.Namespace, stop: StopRequest, device: torch.device) -> None:
    """Train from the newest checkpoint, or from the beginning, to the last step or the stop."""
    rank, world = dist.get_rank(), dist.get_world_size()
    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels / 16.0, dtype=torch.float32, device=device)
    targets = torch.tensor(labels, device=device)

    torch.manual_seed(options.seed)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    first = resume(options.checkpoints, model, optimizer, device) + 1
    print(f"rank {rank} of {world} begins with step {first}", flush=True)
    parallel = DistributedDataParallel(model)

    for step in range(first, options.steps + 1):
        began = time.perf_counter()
        whole = batch_of(step, options.batch, options.seed, len(inputs))
        part = whole.tensor_split(world)[rank].to(device)
        # DDP averages over the ranks: weighted so, parts of unequal size still give the gradient of the whole batch.
        loss = functional.cross_entropy(parallel(inputs[part]), targets[part], reduction="sum") / len(whole)
        optimizer.zero_grad()
        (loss * world).backward()
        optimizer.step()
        time.sleep(options.step_s)
        shared = torch.stack([loss.detach(), torch.tensor(float(stop.asked), device=device)])
        dist.all_reduce(shared)
        values = {"step_time_s": time.perf_counter() - began}
        if rank == 0:
            values["train/loss"] = shared[0].item()
            pilothouse_emit.progress(step / options.steps, "Training")
        pilothouse_emit.metric(step, **values)
        # All ranks see the same sum, so all of them stop after the same step.
        is_stopping = shared[1].item() > 0
        if rank == 0 and (is_stopping or step % options.save_every == 0 or step == options.steps):
            save(options.checkpoints, step, model, optimizer)
        if is_stopping:
            print(f"rank {rank} stops after step {step}", flush=True)
            return
    if rank == 0:
        with torch.inference_mode():
            accuracy = (model(inputs).argmax(1) == targets).float().mean().item()
        pilothouse_emit.result(**{"train/accuracy": accuracy})


def main() -> None:
    """Join the other ranks, train, leave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=25)
    parser.add_argument("--step-s", type=float, default=0.0, help="wait this long at every step, to have time to look")
    parser.add_argument("--checkpoints", type=Path, required=True)
    options = parser.parse_args()
    options.checkpoints.mkdir(parents=True, exist_ok=True)

    stop = StopRequest()
    signal.signal(signal.SIGTERM, stop.note)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(minutes=5))
    train(options, stop, device)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
