"""Ranks texts against what was typed: letters in order, better at starts of words and in a row."""

from __future__ import annotations

_START_BONUS = 8
_ROW_BONUS = 5
_GAP_COST = 1


def fuzzy_score(typed: str, text: str) -> int | None:
    """Return how well ``text`` fits, None when the typed letters do not occur in order. Higher is better."""
    needle = typed.casefold().replace(" ", "")
    if not needle:
        return 0
    haystack = text.casefold()
    at = haystack.find(typed.casefold().strip())
    if at >= 0:
        return 1000 - at + (_START_BONUS if at == 0 or not haystack[at - 1].isalnum() else 0)
    return _spread_score(needle, haystack)


def _spread_score(needle: str, haystack: str) -> int | None:
    score, last = 0, -1
    for letter in needle:
        at = haystack.find(letter, last + 1)
        if at < 0:
            return None
        if at == last + 1 and last >= 0:
            score += _ROW_BONUS
        elif at == 0 or not haystack[at - 1].isalnum():
            score += _START_BONUS
        else:
            score -= min(at - last, 10) * _GAP_COST
        last = at
    return score
