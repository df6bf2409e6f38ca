"""Fields about images that the image kinds share."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from core.train.fields import extra

DIGITS = "digits"
MIN_IMAGES_PER_CLASS = 8
"""So that each class is in all three parts."""

DamagedImages = Annotated[
    Literal["stop", "skip"],
    Meta(
        title="Damaged images",
        description="stop: one that cannot be decoded ends the run and is named; skip: they are left out, counted and named.",
        extra_json_schema=extra("Data", advanced=True),
    ),
]
