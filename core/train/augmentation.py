"""The random changes an image goes through while training; each is a field of the form."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Augmentation"


class AugmentationSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges of the random changes; 0 (or false) turns one off."""

    rotation_deg: Annotated[
        float,
        Meta(
            title="Rotation",
            ge=0,
            le=180,
            description="Turned by up to this angle either way; 10 to 15 suits handwriting.",
            extra_json_schema=extra(_SECTION, "°"),
        ),
    ] = 12.0
    translate_fraction: Annotated[
        float,
        Meta(
            title="Shift",
            ge=0,
            le=0.5,
            description="Moved by up to this share of the image's side, in both directions.",
            extra_json_schema=extra(_SECTION),
        ),
    ] = 0.08
    scale_fraction: Annotated[
        float,
        Meta(
            title="Zoom",
            ge=0,
            le=0.9,
            description="Made larger or smaller by up to this share.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 0.1
    shear_deg: Annotated[
        float,
        Meta(
            title="Shear",
            ge=0,
            le=45,
            description="Slanted by up to this angle along both axes.",
            extra_json_schema=extra(_SECTION, "°", advanced=True),
        ),
    ] = 8.0
    crop_padding_px: Annotated[
        int,
        Meta(
            title="Random crop padding",
            ge=0,
            le=64,
            description="Padded with black by this much, then cut back to size at a random place.",
            extra_json_schema=extra(_SECTION, "px", advanced=True),
        ),
    ] = 0
    horizontal_flip: Annotated[
        bool,
        Meta(
            title="Mirror",
            description="Mirrored left to right half of the time; wrong for digits and text.",
            extra_json_schema=extra(_SECTION),
        ),
    ] = False
    erase_probability: Annotated[
        float,
        Meta(
            title="Random erasing",
            ge=0,
            le=1,
            description="Chance that a small rectangle is blanked out.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 0.0
