"""The stand-in's controllers: pods for Jobs, a Job for a JobSet or a TrainJob, replacements, ends, and deletion."""

from __future__ import annotations

import contextlib
import copy
import os
import secrets
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.helpers.kube_api import KubeApi
    from tests.helpers.kube_pods import Container

Object = dict[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"


class Controllers:
    """Acts on what is made and deleted; every change of an object is under the server's lock."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._containers: dict[str, Container] = {}
        self.gpus = 8
        self.bad_images: set[str] = set()
        self.refused: set[str] = set()
        self.quota = False
        self.keeps_pods = False

    def close(self) -> None:
        """Kill every container with all that it started."""
        for container in self._containers.values():
            container.kill()
            container.thread.join(20)
        for pid in self._api.machine.live_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- making -------------------------------------------------------------------------------------------------------

    def made(self, resource: str, one: Object) -> None:
        """React to a new object."""
        if resource == "jobs":
            self._start_job(one)
        elif resource == "jobsets":
            for part in one["spec"]["replicatedJobs"]:
                self._child_job(one, f"{one['metadata']['name']}-{part['name']}-0", part["template"])
        elif resource == "trainjobs":
            self._child_job(one, f"{one['metadata']['name']}-node-0", _trained(one))

    def _child_job(self, parent: Object, name: str, template: Object) -> None:
        meta = {"name": name, "labels": dict(template["metadata"]["labels"]), "ownerReferences": [_owner(parent)]}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]}
        self._start_job(self._api.put("jobs", job))

    def _start_job(self, job: Object) -> None:
        job.setdefault("status", {})
        if self.quota:
            name = job["metadata"]["name"]
            message = (
                f'Error creating: pods "{name}-0" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=4'
            )
            event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{name}.1"}, "type": "Warning"}
            about = {"involvedObject": {"kind": "Job", "name": name}, "lastTimestamp": "2026-11-24T10:00:00Z"}
            self._api.put("events", {**event, **about, "reason": "FailedCreate", "message": message, "count": 3})
            return
        for index in range(job["spec"]["completions"]):
            self._start_pod(job, index)

    def _start_pod(self, job: Object, index: int) -> None:
        template = copy.deepcopy(job["spec"]["template"])
        name = f"{job['metadata']['name']}-{index}-{secrets.token_hex(3)[:5]}"
        meta = {
            "name": name,
            "labels": {**template["metadata"]["labels"], INDEX: str(index)},
            "annotations": {INDEX: str(index)},
            "ownerReferences": [_owner(job)],
        }
        spec = {**template["spec"], "nodeName": "machine-1"}
        status: Object = {"phase": "Pending", "conditions": []}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}
        self._api.put("pods", pod)
        container = spec["containers"][0]
        wanted = int(container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))
        if wanted > self.gpus:
            spec.pop("nodeName")
            message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available"
            status["conditions"] = [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            ]
        elif container["image"] in self.bad_images:
            self._waits(status, "ImagePullBackOff", f'Back-off pulling image "{container["image"]}"')
        else:
            self._run(pod)

    def _run(self, pod: Object) -> None:
        meta = pod["metadata"]
        try:
            container = self._api.machine.start(pod, self._api.find, lambda code: self._ended(pod, code))
        except KeyError as missing:
            self._waits(pod["status"], "CreateContainerConfigError", f"{missing.args[0]} not found")
            return
        with self._api.lock:
            self._containers[meta["uid"]] = container
            self._api.logs[meta["uid"]] = container.log
            if pod["status"]["phase"] == "Pending":
                pod["status"]["phase"] = "Running"
                pod["status"]["containerStatuses"] = [{"name": "node", "state": {"running": {}}, "restartCount": 0}]

    @staticmethod
    def _waits(status: Object, reason: str, message: str) -> None:
        waiting = {"reason": reason, "message": message}
        status["containerStatuses"] = [{"name": "node", "state": {"waiting": waiting}, "restartCount": 0}]

    # -- ending -------------------------------------------------------------------------------------------------------

    def _ended(self, pod: Object, code: int) -> None:
        """A container ended: the pod's phase, and what follows for its Job."""
        with self._api.lock:
            meta = pod["metadata"]
            ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
            pod["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
            pod["status"]["containerStatuses"] = [{"name": "node", "state": {"terminated": ended}, "restartCount": 0}]
            job = self._api.find("jobs", meta["ownerReferences"][0]["name"])
            if "deletionTimestamp" in meta:
                self._api.drop("pods", meta["name"])
            if job is None or "deletionTimestamp" in job["metadata"]:
                self._finish_deletion()
                return
            self._settle(job, pod, code)

    def _settle(self, job: Object, pod: Object, code: int) -> None:
        status = job["status"]
        pods = [
            one
            for one in self._api.all("pods")
            if one["metadata"]["ownerReferences"][0]["name"] == job["metadata"]["name"]
        ]
        if code != 0 and not status.get("conditions"):
            status["failed"] = status.get("failed", 0) + 1
            if status["failed"] <= job["spec"]["backoffLimit"]:
                self._start_pod(job, int(pod["metadata"]["annotations"][INDEX]))
                return
            message = "Job has reached the specified backoff limit"
            self._conclude(job, "Failed", "BackoffLimitExceeded", message)
            for one in pods:
                self._end_pod(one)
        done = {one["metadata"]["annotations"][INDEX] for one in pods if one["status"]["phase"] == "Succeeded"}
        if len(done) == job["spec"]["completions"]:
            self._conclude(job, "Complete", "CompletionsReached", "")

    def _conclude(self, job: Object, kind: str, reason: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        job["status"]["conditions"] = [condition]
        for owner in job["metadata"].get("ownerReferences", ()):
            for resource in ("jobsets", "trainjobs"):
                parent = self._api.find(resource, owner["name"])
                if parent is not None:
                    named = {"Complete": "Completed"}.get(kind, kind) if resource == "jobsets" else kind
                    parent["status"] = {"conditions": [{**condition, "type": named}]}

    # -- deletion -----------------------------------------------------------------------------------------------------

    def delete(self, resource: str, one: Object) -> None:
        """Delete in the foreground: first what an object owns, then itself."""
        with self._api.lock:
            if resource == "pods":
                self._end_pod(one, delete=True)
                return
            one["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"
            for child in self._owned(one):
                self.delete("pods" if child["kind"] == "Pod" else "jobs", child)
            self._finish_deletion()

    def _end_pod(self, pod: Object, *, delete: bool = False) -> None:
        meta = pod["metadata"]
        if delete and self.keeps_pods:
            return
        if delete:
            meta["deletionTimestamp"] = "2026-11-24T00:00:00Z"
        container = self._containers.get(meta["uid"])
        if container is not None and container.process.poll() is None and container.thread.is_alive():
            container.end(pod["spec"].get("terminationGracePeriodSeconds", 30))
        elif delete:
            self._api.drop("pods", meta["name"])

    def _owned(self, one: Object) -> list[Object]:
        name, kind = one["metadata"]["name"], one["kind"]
        owner = {"kind": kind, "name": name}
        owned = [*self._api.all("pods"), *self._api.all("jobs")]
        return [child for child in owned if owner in child["metadata"].get("ownerReferences", ())]

    def _finish_deletion(self) -> None:
        """Remove what is to be deleted and owns nothing any more, from the leaves up."""
        for _ in range(3):
            for resource in ("jobs", "jobsets", "trainjobs", "services", "configmaps"):
                for one in self._api.all(resource):
                    if "deletionTimestamp" in one["metadata"] and not self._owned(one):
                        self._api.drop(resource, one["metadata"]["name"])


def _owner(one: Object) -> Object:
    return {"kind": one["kind"], "name": one["metadata"]["name"]}


def _trained(one: Object) -> Object:
    """Return the Job that Kubeflow's torch runtime makes of a TrainJob with our one patch."""
    trainer = one["spec"]["trainer"]
    patch = one["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]
    pod = copy.deepcopy(patch["spec"]["template"])
    pet = [{"name": "PET_NNODES", "value": str(trainer["numNodes"])}, {"name": "PET_MASTER_PORT", "value": "29400"}]
    pod["spec"]["containers"][0] |= {
        "image": trainer["image"],
        "command": trainer["command"],
        "env": [*trainer["env"], *pet],
        "resources": trainer.get("resourcesPerNode", {}),
    }
    nodes = trainer["numNodes"]
    spec = {"completions": nodes, "parallelism": nodes, "backoffLimit": 0, "template": pod}
    return {"metadata": patch["metadata"], "spec": spec}
