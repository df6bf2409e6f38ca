"""The same act on several hosts at once, and one sentence about all that went wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from core.contracts.errors import Cancelled, EnvironmentProblem, InvalidSpec, PilothouseError, UserError

Where = TypeVar("Where")
Outcome = TypeVar("Outcome")


def attempt_all(
    act: Callable[[Where], Outcome], places: Sequence[Where]
) -> tuple[list[Outcome | None], list[tuple[Where, PilothouseError]]]:
    """Do the act at all places at once; return what came of each (None where it failed), and the failures."""
    if not places:
        return [], []
    with ThreadPoolExecutor(len(places), thread_name_prefix="hosts") as pool:
        futures: list[Future[Outcome]] = [pool.submit(act, place) for place in places]
    outcomes: list[Outcome | None] = []
    failures: list[tuple[Where, PilothouseError]] = []
    for place, future in zip(places, futures, strict=True):
        error = future.exception()
        if error is not None and not isinstance(error, PilothouseError):
            raise error
        if error is not None:
            failures.append((place, error))
        outcomes.append(None if error is not None else future.result())
    return outcomes, failures


def do_all(act: Callable[[Where], Outcome], places: Sequence[Where], name: Callable[[Where], str]) -> list[Outcome]:
    """Do the act at all places at once; return what came of each.

    Raises:
        Cancelled: One was cancelled.
        InvalidSpec: The problems of all places together.
        UserError: As the first failure, with all that failed named.
        EnvironmentProblem: Likewise.
    """
    outcomes, failures = attempt_all(act, places)
    if failures:
        raise joined([(name(place), error) for place, error in failures])
    return [outcome for outcome in outcomes if outcome is not None]


def joined(failures: Sequence[tuple[str, PilothouseError]]) -> PilothouseError:
    """Return one error for the failures of several hosts, each named once."""
    errors = [error for _, error in failures]
    for error in errors:
        if isinstance(error, Cancelled):
            return error
    invalid = [error for error in errors if isinstance(error, InvalidSpec)]
    if invalid:
        return InvalidSpec(tuple(problem for error in invalid for problem in error.problems))
    sentences = [
        error.message if error.message.startswith((f"{name}:", f"{name} ")) else f"{name}: {error.message}"
        for name, error in failures
    ]
    hint = next((error.hint for error in errors if error.hint), "")
    is_environment = any(isinstance(error, EnvironmentProblem) for error in errors)
    return (EnvironmentProblem if is_environment else UserError)(" ".join(sentences), hint)
