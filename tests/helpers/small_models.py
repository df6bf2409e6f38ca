"""A small real classifier with its exports and data, made once per test session: trained for a second, then exported.

Digits of scikit-learn at 8x8; a convolution of 12 channels, a residual one, a stride, a linear layer: the shapes that
quantizers stumble over.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SmallModel:
    """Files of one trained model and the scores that PyTorch gave for the test samples."""

    pt2: Path
    onnx: Path
    calibration: Path
    test: Path
    scores: NDArray[np.float32]


def make_small_model(folder: Path) -> SmallModel:
    """Train and export; about three seconds on one core."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + self.norm(self.convolution(x)))

    digits = load_digits()
    x = torch.from_numpy((digits.images / 16).astype(np.float32))[:, None]
    y = torch.from_numpy(digits.target.astype(np.int64))
    torch.manual_seed(0)
    order = torch.randperm(len(x))
    train, test = order[:1400], order[1400:]
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        Residual(12),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(4):
        for batch in train[torch.randperm(len(train))].split(50):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        scores = model(x[test]).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    example = x[test[:2]].clone()
    made = SmallModel(
        folder / "model.pt2", folder / "model.onnx", folder / "calibration.npz", folder / "test.npz", scores
    )
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.export.save(program, made.pt2)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        exported = torch.onnx.export(program, dynamo=True, input_names=["input"], output_names=["logits"])
        assert exported is not None
        exported.save(made.onnx, external_data=False)
    np.savez(made.calibration, x=x[train[:96]].numpy(), y=y[train[:96]].numpy())
    np.savez(made.test, x=x[test].numpy(), y=y[test].numpy())
    return made
