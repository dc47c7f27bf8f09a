"""A cluster in memory, whose every step, delay and failure a test decides: Jobs, kubelet, queue, garbage collector.

It stands beside the tests on a real cluster because that one cannot fail on command between two given calls. What the
Job controller decides and says is that of Kubernetes 1.34 (pkg/controller/job), without the delay between two pods of
an index. Nothing moves but in `tick`, and no time passes but by `wait`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from simulated_api import Object, SimulatedApi
from sppo_operator.decide import Stage, Step, inputs
from sppo_operator.facts import timestamp

QUEUE_LABEL, JOB_UID_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/job-uid"
JOB_LABEL, JOB_OF_POD_LABEL = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"
INDEX = "batch.kubernetes.io/job-completion-index"
UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class Behaviour:
    """What one pod of a stage does."""

    exit_code: int | None = 0
    """None: it works until it is stopped."""
    message: str = ""
    disrupted: bool = False
    """Its node is drained: SIGTERM and the condition DisruptionTarget."""
    unreachable: bool = False
    """Its node answers no more: nothing ends it."""


DONE, DISRUPTED = Behaviour(), Behaviour(143, disrupted=True)
HANGS, LOST = Behaviour(None), Behaviour(None, unreachable=True)


class SimulatedCluster(SimulatedApi):
    def __init__(self) -> None:
        super().__init__()
        self.script: dict[str, list[Behaviour]] = defaultdict(list)
        """What the next pods of a step do, by its name such as "train 1"; without an entry they are done."""
        self.logs: dict[str, str] = {}
        """Of the pods of a Job, by its name."""
        self.admitting = True
        """Whether the queue has room."""
        self.sees_stopped_pods = True
        """Whether the Job controller looks before the kubelet has removed the pods of a suspended Job: a race."""
        self.win_rates = True
        """Whether evaluations report them."""
        self.work: Counter[str] = Counter()
        """How often a step did its work rather than find it done."""
        self._shards: dict[str, set[int]] = defaultdict(set)
        self._behaviour: dict[str, Behaviour] = {}
        self._ended: dict[str, dict[str, Object]] = defaultdict(dict)
        """Of every Job, by uid: its pods that ended, by name; they count though they may be deleted by now."""

    def tick(self) -> None:
        self._collect_garbage()
        for job in self.all("jobs"):
            if not has_ended(job) and "deletionTimestamp" not in job["metadata"]:
                self._sync(self._admit(job))
        for pod in self.all("pods"):
            self._run(pod)

    def log_of(self, pod: Object) -> str:
        return self.logs.get(pod["metadata"]["labels"][JOB_LABEL], "")

    def _collect_garbage(self) -> None:
        """Remove what has lost its owner, and owners deleted in the foreground whose dependents are gone."""
        leaving = {
            item["metadata"]["uid"]
            for at, item in self._objects.items()
            if at.plural != "pods" and "deletionTimestamp" in item["metadata"]
        }
        staying = {item["metadata"]["uid"] for item in self._objects.values()} - leaving
        owners = {at: {owner["uid"] for owner in _owners(item)} for at, item in self._objects.items()}
        needed = set().union(*owners.values())
        for at, item in list(self._objects.items()):
            if (owners[at] and not owners[at] & staying) or item["metadata"]["uid"] in leaving - needed:
                self.remove(at)

    # The queue

    def _admit(self, job: Object) -> Object:
        """Kueue shows a Workload for every Job of a queue, and starts the Job when there is room."""
        if QUEUE_LABEL not in job["metadata"]["labels"]:
            return job
        uid = job["metadata"]["uid"]
        if not self.all("workloads", f"{JOB_UID_LABEL}={uid}"):
            name = f"job-{job['metadata']['name']}"
            self.add("workloads", _owned(job, name, {JOB_UID_LABEL: uid}, spec={"active": True}))
        if not job["spec"]["suspend"]:
            return job
        if self.admitting:
            self._set(job, QuotaReserved="True", Evicted="False")
            return self.change(job, spec={"suspend": False})
        self._set(job, QuotaReserved="False")
        return job

    def evict(self, job: Object) -> None:
        """The queue takes the place of a Job that it had admitted."""
        workload = self._set(job, QuotaReserved="False", Evicted="True")
        before = workload["status"].get("schedulingStats", {}).get("evictions", [{"count": 0}])[0]["count"]
        evictions = [{"reason": "Preempted", "count": before + 1}]
        self.change(workload, "status", schedulingStats={"evictions": evictions})
        self.change(job, spec={"suspend": True})

    def _set(self, job: Object, **conditions: str) -> Object:
        (workload,) = self.all("workloads", f"{JOB_UID_LABEL}={job['metadata']['uid']}")
        kept = {item["type"]: item for item in workload["status"].get("conditions", ())}
        for kind, status in conditions.items():
            if kept.get(kind, {}).get("status", "False") != status or (kind == "QuotaReserved" and kind not in kept):
                kept[kind] = self._condition(kind, "Decided", "so it was decided") | {"status": status}
        return self.change(workload, "status", conditions=list(kept.values()))

    # The Job controller

    def _sync(self, job: Object) -> None:
        conditions = {item["type"]: item for item in job["status"].get("conditions", ())}
        pods = self._live_pods(job)
        verdict = conditions.get("FailureTarget") or conditions.get("SuccessCriteriaMet") or self._verdict(job)
        suspended = job["spec"].get("suspend", False)
        status: dict[str, Any] = {}
        if verdict:
            conditions[verdict["type"]] = verdict
            if not pods:
                final = "Complete" if verdict["type"] == "SuccessCriteriaMet" else "Failed"
                conditions[final] = self._condition(final, verdict["reason"], verdict["message"])
                status = {"completionTime": timestamp(self.now)} if final == "Complete" else {}
        elif suspended:
            conditions.setdefault("Suspended", self._condition("Suspended", "JobSuspended", "Job suspended"))
            status = {"startTime": None}
        elif "Suspended" in conditions or "startTime" not in job["status"]:
            conditions.pop("Suspended", None)
            status = {"startTime": timestamp(self.now)}
        if verdict or suspended:
            for pod in pods:
                self.remove(self.at(pod))
        else:
            self._fill_indexes(job, pods)
        active = [pod for pod in self._live_pods(job) if "deletionTimestamp" not in pod["metadata"]]
        self.change(job, "status", **status, active=len(active), conditions=list(conditions.values()))

    def _verdict(self, job: Object) -> Object | None:
        """How the Job will end, in the order of syncJob."""
        spec = job["spec"]
        failures, done = Counter[int](), set()
        for pod in self._ended[job["metadata"]["uid"]].values():
            index = _index(pod)
            if pod["status"]["phase"] == "Succeeded":
                done.add(index)
                continue
            action, message = _matched(spec["podFailurePolicy"]["rules"], pod)
            if action == "FailJob":
                return self._condition("FailureTarget", "PodFailurePolicy", message)
            failures[index] += action != "Ignore"
        if failures.total() > spec.get("backoffLimit", UNLIMITED):
            message = "Job has reached the specified backoff limit"
            return self._condition("FailureTarget", "BackoffLimitExceeded", message)
        started, deadline = job["status"].get("startTime"), spec.get("activeDeadlineSeconds", UNLIMITED)
        if started and self.now >= datetime.fromisoformat(started) + timedelta(seconds=deadline):
            message = "Job was active longer than specified deadline"
            return self._condition("FailureTarget", "DeadlineExceeded", message)
        if any(times > spec.get("backoffLimitPerIndex", UNLIMITED) for times in failures.values()):
            message = "Job has exceeded the specified maximal number of failed indexes"
            return self._condition("FailureTarget", "MaxFailedIndexesExceeded", message)
        if len(done) == spec["completions"]:
            message = "Reached expected number of succeeded pods"
            return self._condition("SuccessCriteriaMet", "CompletionsReached", message)
        return None

    def _fill_indexes(self, job: Object, pods: list[Object]) -> None:
        """A pod for every index that is not done; one that is still ending keeps its place."""
        metadata, template = job["metadata"], job["spec"]["template"]
        ended = self._ended[metadata["uid"]].values()
        done = [pod for pod in ended if pod["status"]["phase"] == "Succeeded"]
        taken = {_index(pod) for pod in (*pods, *done)}
        for index in set(range(job["spec"]["completions"])) - taken:
            labels = {JOB_LABEL: metadata["name"], JOB_OF_POD_LABEL: metadata["uid"], INDEX: str(index)}
            name = f"{metadata['name']}-{index}-{self._number()}"
            pod = _owned(job, name, template["metadata"]["labels"] | labels, spec=template["spec"])
            pod["metadata"]["annotations"] = {INDEX: str(index)}
            self.add("pods", {**pod, "status": {"phase": "Pending"}})

    def _live_pods(self, job: Object) -> list[Object]:
        """Those that have not ended, which may be ending."""
        uid = job["metadata"]["uid"]
        pods = self.all("pods", f"{JOB_LABEL}={job['metadata']['name']}")
        return [
            pod for pod in pods if _owners(pod)[0]["uid"] == uid and pod["status"]["phase"] in ("Pending", "Running")
        ]

    def _condition(self, kind: str, reason: str, message: str) -> Object:
        moment = timestamp(self.now)
        return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": moment}

    # The kubelet and the stages

    def _run(self, pod: Object) -> None:
        uid, phase = pod["metadata"]["uid"], pod["status"]["phase"]
        going = "deletionTimestamp" in pod["metadata"]
        if phase in ("Succeeded", "Failed"):
            if going and not pod["metadata"].get("finalizers"):
                self.remove(self.at(pod))
        elif uid in self._behaviour and self._behaviour[uid].unreachable:
            return
        elif going:
            self._end(pod, Behaviour(143))
        elif phase == "Pending":
            step = _step(pod)
            assert all(self.work[str(needed)] for needed in inputs(step)), f"{step} began without its inputs"
            script = self.script[str(step)]
            self._behaviour[uid] = script.pop(0) if script else DONE
            self.change(pod, "status", phase="Running", startTime=timestamp(self.now))
        elif self._behaviour[uid].exit_code is not None:
            self._end(pod, self._behaviour[uid])

    def _end(self, pod: Object, behaviour: Behaviour) -> None:
        code = behaviour.exit_code
        message = behaviour.message or (self._result(pod) if code == 0 else "")
        times = {"startedAt": pod["status"].get("startTime"), "finishedAt": timestamp(self.now)}
        ended = {**times, "exitCode": code, "reason": "Error" if code else "Completed", "message": message}
        status: dict[str, Any] = {"phase": "Failed" if code else "Succeeded"}
        if pod["status"]["phase"] == "Running":
            status["containerStatuses"] = [{"name": "stage", "state": {"terminated": ended}}]
        if behaviour.disrupted:
            target = self._condition("DisruptionTarget", "EvictionByEvictionAPI", "Eviction API: evicting")
            status["conditions"] = [target]
        pod = self.change(pod, "status", **status)
        (owner,) = _owners(pod)
        job = next((job for job in self.all("jobs") if job["metadata"]["uid"] == owner["uid"]), None)
        # A Job that was suspended lets go of its pods, and only its failure policy may still see how they end.
        if job and (self.sees_stopped_pods or not job["spec"].get("suspend")):
            self._ended[owner["uid"]][pod["metadata"]["name"]] = pod

    def _result(self, pod: Object) -> str:
        """What the stage writes; the last of several workers commits the artifact."""
        step, index = _step(pod), _index(pod)
        name = str(step)
        if not self.work[name]:
            self._shards[name].add(index)
            config = json.loads(pod["spec"]["containers"][0]["env"][0]["value"])
            if len(self._shards[name]) < config["workers"]:
                return json.dumps({"metrics": {"worker": index}})
            self._shards[name].clear()
            self.work[name] += 1
        rate = 0.5 + step.iteration / 10
        rates = {"winRateBase": rate, "winRateBaseLow": rate - 0.1, "winRateBaseHigh": rate + 0.1}
        metrics = {"rows": 8} | (rates if self.win_rates else {})
        model = {"model": f"i{step.iteration}/train/model"} if step.stage is Stage.TRAIN else {}
        return json.dumps({"metrics": metrics, "contentDigest": f"digest of {name}", **model})


def has_ended(job: Object) -> bool:
    return any(item["type"] in ("Complete", "Failed") for item in job["status"].get("conditions", ()))


def _matched(rules: list[Object], pod: Object) -> tuple[str, str]:
    """The action of the first rule that matches a failed pod, and the sentence of Kubernetes about it."""
    where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    codes = [item["state"]["terminated"]["exitCode"] for item in pod["status"].get("containerStatuses", ())]
    conditions = [item["type"] for item in pod["status"].get("conditions", ())]
    for number, rule in enumerate(rules):
        action = rule["action"]
        end = f"matching {action} rule at index {number}"
        if "onExitCodes" in rule and set(codes) & set(rule["onExitCodes"]["values"]):
            name = rule["onExitCodes"]["containerName"]
            return action, f"Container {name} for pod {where} failed with exit code {codes[0]} {end}"
        for pattern in rule.get("onPodConditions", ()):
            if pattern["type"] in conditions:
                return action, f"Pod {where} has condition {pattern['type']} {end}"
    return "Count", ""


def _owners(item: Mapping[str, Any]) -> list[Object]:
    owners: list[Object] = item["metadata"].get("ownerReferences", [])
    return owners


def _owned(job: Object, name: str, labels: Mapping[str, str], **parts: Any) -> Object:
    metadata = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    references = [{**owner, "controller": True}]
    namespace = metadata["namespace"]
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": references},
        **parts,
    }


def _index(pod: Object) -> int:
    return int(pod["metadata"]["annotations"][INDEX])


def _step(pod: Object) -> Step:
    labels = pod["metadata"]["labels"]
    return Step(int(labels["sppo.dev/iteration"]), Stage(labels["sppo.dev/stage"]))
