"""FLOPs of training a decoder, by formula."""

from __future__ import annotations

from core.train.models.shape import ModelShape


def training_flops(shape: ModelShape, tokens: int, length: int) -> float:
    """Return the model FLOPs of forward and backward passes over tokens; recomputation does not count.

    A token costs 6 N for the matrices (2 forward, 4 backward) and 12 L H Q T for attention over the sequence (Chowdhery
    et al., 2022, "PaLM", appendix B). N leaves out the input embedding, which is a look-up, unless it is tied to the
    output. Frozen weights get no gradient: 4 instead of 6.

    Args:
        shape: Measures of the model.
        tokens: Tokens trained on.
        length: Tokens of a sequence, T.
    """
    lookup = 0 if shape.tied else shape.vocabulary * shape.hidden
    computed = max(0, shape.parameters - lookup)
    trained = min(shape.trained_parameters or computed, computed)
    attention = 12 * shape.layers * shape.hidden * length
    return tokens * (4.0 * computed + 2.0 * trained + attention)
