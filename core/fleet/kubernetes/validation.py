"""Holds objects against the schemas of Kubernetes, JobSet and Kubeflow Trainer, strictly, without any cluster.

Core kinds: the JSON schemas that ``kubernetes-validate`` carries; a field that is not in them is an error. JobSet and
TrainJob: the models of ``kubeflow-trainer-api``, which drop unknown fields without a word, so that what comes out of
them is compared with what went in. A JobSet's jobs are checked as Jobs too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from core.contracts.errors import UserError

Object = dict[str, Any]

OLDEST_VERSION, NEWEST_VERSION = "1.32", "1.37"
_HINT = "This is a fault in Pilothouse or in a value of the spec; the field is named. Nothing was sent to the cluster."


def validate(objects: Iterable[Object], version: str = NEWEST_VERSION) -> None:
    """Accept objects that the API server would accept, as far as schemas can tell.

    Args:
        objects: Of core kinds, JobSet or TrainJob.
        version: Version of Kubernetes, such as ``1.33``.

    Raises:
        UserError: A field is unknown, missing or of a wrong type; the first is named.
    """
    for one in objects:
        kind = one.get("kind")
        if kind == "JobSet":
            _same_after_model(one, _job_set(one))
            for replicated in one["spec"].get("replicatedJobs", ()):
                template = cast("Object", replicated["template"])
                _by_schema({"apiVersion": "batch/v1", "kind": "Job", **template}, version)
        elif kind == "TrainJob":
            _same_after_model(one, _train_job(one))
        else:
            _by_schema(one, version)


def _by_schema(one: Object, version: str) -> None:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(part) for part in error.path)
        raise _refused(one, f"{where}: {error.message}" if where else error.message) from error
    except kubernetes_validate.SchemaNotFoundError as error:
        raise _refused(one, error.message) from error


def _job_set(one: Object) -> Object:
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    return _through(JobsetV1alpha2JobSet, one)


def _train_job(one: Object) -> Object:
    from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

    return _through(TrainerV1alpha1TrainJob, one)


def _through(model: Any, one: Object) -> Object:
    from pydantic import ValidationError

    try:
        return cast("Object", model.from_dict(one).to_dict())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _refused(one, f"{where}: {first['msg']}") from error


def _same_after_model(before: Object, after: Object) -> None:
    lost = _first_difference(before, after, "")
    if lost:
        raise _refused(before, f"{lost}: unknown field, or of another type than the schema's")


def _first_difference(before: Any, after: Any, where: str) -> str:
    """Return the path of the first thing that is in ``before`` and not, or not the same, in ``after``."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in cast("Object", before).items():
            path = f"{where}.{key}".lstrip(".")
            if key not in after:
                return path
            if found := _first_difference(value, cast("Object", after)[key], path):
                return found
        return ""
    if isinstance(before, list) and isinstance(after, list):
        items, others = cast("list[Any]", before), cast("list[Any]", after)
        if len(items) != len(others):
            return where
        pairs = enumerate(zip(items, others, strict=True))
        return next((found for i, (a, b) in pairs if (found := _first_difference(a, b, f"{where}.{i}"))), "")
    return "" if before == after else where


def _refused(one: Object, why: str) -> UserError:
    name = one.get("metadata", {}).get("name", "without a name")
    return UserError(f"The {one.get('kind')} {name!r} is not valid: {why}.", _HINT)
