"""The spec that a sweep varies: where it comes from, what stands against varying it, and the spec of one trial.

All problems of a sweep are found here, before a launch, without any heavy library: unknown fields, ranges the fields
refuse, a grid that has no end, a base that cannot be read.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from core.contracts.errors import FieldProblem, InvalidSpec
from core.contracts.ids import RunId
from core.contracts.specs import LaunchSpec, RunSpec
from core.contracts.sweeps import SWEEP_KIND, ParameterValue
from core.pipeline.sweep.ranges import Domain, parse_domain
from core.pipeline.sweep.spec import SweepSpec
from core.plugins.decode import decode_spec, parse_toml
from core.plugins.fields import spec_fields
from core.plugins.registry import registry
from core.runlog.layout import RunLayout
from core.settings.home import Home, default_home

MAX_GRID = 10_000
"""Most combinations of a grid."""
_OWN_FIELDS = ("name", "tags", "parent")


@dataclass(frozen=True, slots=True)
class Base:
    """The spec that is varied, as plain values with absolute paths, and what is varied in it."""

    mapping: dict[str, Any]
    domains: tuple[Domain, ...]

    def trial_spec(self, values: Mapping[str, ParameterValue]) -> RunSpec:
        """Return the spec of the trial with these values; InvalidSpec when they do not go together."""
        return decode_spec(with_values(self.mapping, values), folder=None)


def with_values(mapping: Mapping[str, Any], values: Mapping[str, ParameterValue]) -> dict[str, Any]:
    """Return nested plain values with some of them, by dotted path, replaced."""
    tree: dict[str, Any] = msgspec.to_builtins(mapping)
    for dotted, value in values.items():
        *groups, name = dotted.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[name] = value
    return tree


def _source(spec: SweepSpec, home: Home) -> tuple[str, Path, FieldProblem | None]:
    """Return where the varied spec stands: its field, its file, or what is wrong."""
    if bool(spec.spec) == bool(spec.base):
        message = "give a spec or a base run, not both." if spec.spec else "neither a spec nor a base run is given."
        return "spec", Path(), FieldProblem(field="spec", message=message, hint="Choose the TOML spec to vary.")
    if spec.spec:
        return "spec", Path(spec.spec), None
    run_dir = home.run_dir(RunId(spec.base))
    if Path(spec.base).name == spec.base and RunLayout(run_dir).spec.is_file():
        return "base", RunLayout(run_dir).spec, None
    problem = FieldProblem(field="base", message=f"there is no run {spec.base!r}.", hint="Give the id of a run.")
    return "base", Path(), problem


def _read(where: str, path: Path) -> dict[str, Any] | FieldProblem:
    try:
        mapping = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return FieldProblem(field=where, message=f"{str(path)!r} cannot be read: {reason}.", hint="Check the path.")
    except InvalidSpec as error:
        return FieldProblem(field=where, message=error.problems[0].sentence())
    kind = mapping.get("kind")
    if kind == SWEEP_KIND:
        return FieldProblem(field=where, message="it is a sweep itself.", hint="Vary the spec of a training.")
    if kind not in registry().kinds:
        known = ", ".join(sorted(registry().kinds))
        return FieldProblem(field=where, message=f"{kind!r} is not a kind of run.", hint=f"Use one of: {known}.")
    return mapping


def _domains(spec: SweepSpec, kind: str) -> tuple[list[Domain], list[FieldProblem]]:
    fields = {field.dotted: field for field in spec_fields(registry().get(kind).spec)}
    domains: list[Domain] = []
    problems: list[FieldProblem] = []
    for path, text in spec.parameters.items():
        at = f"parameters.{path}"
        if path in _OWN_FIELDS:
            problems.append(FieldProblem(field=at, message="is set by the sweep itself.", hint="Vary another field."))
        elif path not in fields:
            near = difflib.get_close_matches(path, fields, 1)
            hint = f"Did you mean {near[0]!r}?" if near else "See the fields of the spec."
            problems.append(FieldProblem(field=at, message=f"is not a field of {kind}.", hint=hint))
        else:
            found = parse_domain(fields[path], text, at=at)
            (problems if isinstance(found, FieldProblem) else domains).append(found)  # pyright: ignore[reportArgumentType]
    return domains, problems


def _search_problems(spec: SweepSpec, domains: list[Domain]) -> list[FieldProblem]:
    problems: list[FieldProblem] = []
    if not spec.parameters:
        hint = 'Add one, such as "optimizer.lr" = "1e-4..1e-2 log".'
        problems.append(FieldProblem(field="parameters", message="nothing is varied.", hint=hint))
    if spec.sampler == "grid":
        sizes = [(domain, domain.grid()) for domain in domains]
        problems += [
            FieldProblem(
                field=f"parameters.{domain.field.dotted}",
                message=f"{domain.text!r} has no end of values for a grid.",
                hint="Add 'step S' or 'in N', or choose another sampler.",
            )
            for domain, values in sizes
            if values is None
        ]
        combinations = math.prod(len(values or ()) or 1 for _, values in sizes)
        if combinations > MAX_GRID:
            message = f"the grid has {combinations} combinations, more than {MAX_GRID}."
            problems.append(
                FieldProblem(field="sampler", message=message, hint="Take fewer values, or another sampler.")
            )
    return problems


def _place_problems(launch: LaunchSpec) -> list[FieldProblem]:
    """A sweep itself only launches and reads; its trials have their own places."""
    default = LaunchSpec()
    wrong = {
        "launch.hosts": launch.hosts != default.hosts,
        "launch.slurm.cluster": launch.slurm.cluster != default.slurm.cluster,
        "launch.kubernetes.context": launch.kubernetes.context != default.kubernetes.context,
        "launch.queue": launch.queue,
    }
    hint = "Set it in the spec that is varied: the trials go there."
    message = "a sweep itself stays on this machine and holds no device."
    return [FieldProblem(field=field, message=message, hint=hint) for field, is_wrong in wrong.items() if is_wrong]


def _first(domain: Domain) -> ParameterValue:
    if domain.choices:
        return domain.choices[0]
    return round(domain.low) if domain.is_integer else domain.low


def prepare(spec: SweepSpec, home: Home) -> tuple[Base | None, tuple[FieldProblem, ...]]:
    """Return the base and all problems of a sweep; the base is None where there is a problem with it."""
    problems = _place_problems(spec.launch)
    where, path, problem = _source(spec, home)
    read = problem or _read(where, path)
    if isinstance(read, FieldProblem):
        return None, (*problems, read, *_search_problems(spec, []))
    domains, wrong = _domains(spec, str(read["kind"]))
    problems += [*wrong, *_search_problems(spec, domains)]
    try:
        first = decode_spec(with_values(read, {d.field.dotted: _first(d) for d in domains}), folder=path.parent)
    except InvalidSpec as error:
        problems += [FieldProblem(field=where, message=p.sentence()) for p in error.problems]
        return None, tuple(problems)
    checked = registry().get(str(read["kind"])).check(first)
    problems += [FieldProblem(field=where, message=p.sentence()) for p in checked]
    # The mapping is taken from the decoded spec: complete, with its paths made absolute.
    return Base(_without_none(msgspec.to_builtins(first)), tuple(domains)), tuple(problems)


def _without_none(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]
        for key, value in tree.items()
        if value is not None
    }


def kept_base(spec: SweepSpec, home: Home, kept: Path) -> Base:
    """Return the base of a sweep, kept in a file from its first attempt on: what it was made from may change meanwhile.

    Raises:
        InvalidSpec: It cannot be varied as asked.
        OSError: The file cannot be read or written.
    """
    if not kept.exists():
        base, found = prepare(spec, home)
        if base is None or found:
            raise InvalidSpec(found, "The sweep")
        partial = kept.with_name(f".{kept.name}.partial")
        partial.write_text(tomli_w.dumps(base.mapping), encoding="utf-8")
        partial.rename(kept)
    mapping = parse_toml(kept.read_text(encoding="utf-8"), "The kept spec of the sweep")
    domains, problems = _domains(spec, str(mapping["kind"]))
    if problems:
        raise InvalidSpec(tuple(problems), "The sweep")
    return Base(mapping, tuple(domains))


def check(spec: SweepSpec) -> tuple[FieldProblem, ...]:
    """Return every problem of a sweep; quick, and without any heavy library."""
    return prepare(spec, Home(default_home()))[1]
