"""Chooses device and precision through accelerate, and checks that it really did what was asked.

accelerate ignores some requests without a word (fp16 on a CPU, for one); here such a request is an error with a remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.specs import Device

if TYPE_CHECKING:
    from accelerate import Accelerator

_MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_REMEDY = "Choose the device 'auto', or install the PyTorch build for it."


def _is_available(device: Device) -> bool:
    import torch

    match device:
        case "cuda":
            return torch.cuda.is_available()
        case "mps":
            return torch.backends.mps.is_available()
        case "xpu":
            return torch.xpu.is_available()
        case _:
            return True


def make_accelerator(device: Device, precision: str, grad_accum_steps: int) -> Accelerator:
    """Return an accelerator on the asked device in the asked precision; convolutions are made repeatable.

    Raises:
        EnvironmentProblem: The device is not there.
        UserError: The precision does not work on it.
    """
    import torch
    from accelerate import Accelerator

    if not _is_available(device):
        raise EnvironmentProblem(f"PyTorch finds no {device} device on this machine.", _REMEDY)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=_MIXED_PRECISION[precision],
        gradient_accumulation_steps=grad_accum_steps,
    )
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    used = accelerator.device.type
    if device not in ("auto", used):
        raise EnvironmentProblem(f"{device} was asked for, but {used} would be used.", _REMEDY)
    if precision == "fp16" and used == "cpu":
        raise UserError("fp16 does not work on a CPU.", "Choose bf16 or fp32.")
    if accelerator.mixed_precision != _MIXED_PRECISION[precision] or accelerator.num_processes != 1:
        raise EnvironmentProblem(
            f"accelerate runs {accelerator.num_processes} processes in {accelerator.mixed_precision} instead.",
            "Remove ACCELERATE_ variables from the environment.",
        )
    return accelerator
