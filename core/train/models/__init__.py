"""Builds, loads and describes the networks that are trained."""

from __future__ import annotations

import logging

# transformers imports torchao, which registers its enums in a way that torch warns of twice in each process.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
