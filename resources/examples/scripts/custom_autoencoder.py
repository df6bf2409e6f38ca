"""A custom training: a denoising autoencoder of scikit-learn's 8x8 digits. Needs nothing of Pilothouse.

model, data and loss must be there; evaluate is optional. See the guide page "Your own model and loss".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset, TensorDataset


class NoisyDigits(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pairs of a noisy digit and the clean one. What is drawn here is repeated when a run is resumed."""

    def __init__(self, clean: torch.Tensor, noise: float) -> None:
        self.clean = clean
        self.noise = noise

    def __len__(self) -> int:
        """Return the number of digits."""
        return len(self.clean)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the noisy and the clean digit, shape (64,)."""
        clean = self.clean[index]
        return clean + self.noise * torch.randn_like(clean), clean


def model(settings: dict[str, Any]) -> nn.Module:
    """Return the network; settings arrive as numbers where they look like numbers."""
    code = settings.get("code", 8)
    encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, code))
    decoder = nn.Sequential(nn.Linear(code, 64), nn.ReLU(), nn.Linear(64, 64))
    return nn.Sequential(encoder, decoder)


def data(settings: dict[str, Any]) -> tuple[NoisyDigits, TensorDataset]:
    """Return the training and the validation set."""
    pixels = torch.from_numpy(load_digits().data.astype(np.float32) / 16.0)
    held_out = torch.arange(len(pixels)) % 5 == 0
    clean = pixels[held_out]
    return NoisyDigits(pixels[~held_out], settings.get("noise", 0.1)), TensorDataset(clean, clean)


def loss(outputs: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the mean squared error of the batch; the model was given batch[0]."""
    return nn.functional.mse_loss(outputs, batch[1])


def evaluate(outputs: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    """Return further means over the batch, shown beside the validation loss."""
    return {"absolute_error": (outputs - batch[1]).abs().mean().item()}
