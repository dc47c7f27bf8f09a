"""What a run left in its claim, for a report: read by a pod of the user's own, which cannot write and does not stay.

The pod runs `python -m sppo_trainer.results` of the run's image, and its log is the document. Whatever goes wrong costs
the curves and the answers, never the report.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sppo_operator.api import Api
from sppo_operator.decide import Stage, Step
from sppo_operator.errors import ApiError, ForbiddenError, NotFoundError, RefusedError, UserError
from sppo_operator.facts import Records, best_iteration, in_order
from sppo_operator.jobs import (
    CONTAINER,
    CONTAINER_SECURITY,
    HOME,
    POD_FIELDS,
    POD_SECURITY,
    RUN_LABEL,
    WORKSPACE,
    WORKSPACE_VOLUME,
    Manifest,
    template_of,
    workspace_volume,
)
from sppo_operator.objects import has_ended, one_line, stage_state
from sppo_operator.resources import GROUP, VERSION, pod_log, pods
from sppo_operator.results import Curves, Made, Sample, curves_in, folder_of, made_in, read_json, samples_in
from sppo_operator.spec import Run
from sppo_operator.status import records_of
from sppo_operator.stuck import CONTAINERS, troubles_of

REPORT_LABEL = "sppo.dev/report"
DOCUMENT = 1
"""The version of the document, as the trainer's `results.py` writes it."""
WAIT_SECONDS = 120.0
HOPELESS_SECONDS = 10.0
"""How long a pod may wait for something that does not come by itself."""
DEADLINE_SECONDS = 180
"""The last resort where the pod could not be deleted."""
POLL_SECONDS = 0.5
LOG_SECONDS = 60.0
"""For a document of at most 8 MiB, also where a megabit comes per second."""
QUOTED_CHARACTERS = 300
LIKE = Stage.PREPARE
"""The stage whose pods the reader is like: it mounts the claim and pulls the image, and needs no GPU."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Implements results.Material."""

    missing: Sequence[str] = ()
    all_curves: Mapping[str, Curves] = field(default_factory=dict)
    all_samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    all_made: Mapping[str, Made] = field(default_factory=dict)

    def curves(self, iteration: int) -> Curves:
        return self.all_curves.get(str(iteration), {})

    def samples(self, iteration: int) -> Sequence[Sample]:
        return self.all_samples.get(str(iteration), [])

    def made(self, step: Step) -> Made | None:
        return self.all_made.get(folder_of(step))


class UnreadError(UserError):
    """Why the claim could not be read."""


async def fetch(
    api: Api,
    resource: Mapping[str, Any],
    say: Callable[[str], object],
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Fetched:
    """Everything of the run's claim that a report shows; what is missing says why, and so does `say`."""
    name = f"{resource['metadata']['name'][:40]}-report-{secrets.token_hex(3)}"
    try:
        pod = reader_pod(resource, name)
        say(f"Reading curves and answers from the run's claim (pod {name}, for at most {WAIT_SECONDS:.0f} s) …")
        fetched = fetched_from(await _log_of(api, pod, say, sleep, clock))
    except UserError as error:
        fetched = Fetched(missing=(f"Curves, answers and versions of the claim: {error}.",))
    for sentence in fetched.missing:
        say(f"warning: not in the report: {sentence}")
    return fetched


def reader_pod(resource: Mapping[str, Any], name: str) -> Manifest:
    """Like a pod of prepare, but it cannot write. Raises UserError if there is no claim, or no image is known yet."""
    run = Run.of(resource)
    template = template_of(run, LIKE)
    container = _container(run, resource.get("status", {}), records_of(resource))
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "SPPORun",
        "name": run.name,
        "uid": resource["metadata"]["uid"],
    }
    metadata = {
        "name": name,
        "namespace": run.namespace,
        # Not the label of the run's own pods: the operator must not take it for one.
        "labels": {**template.get("labels", {}), REPORT_LABEL: run.name, "app.kubernetes.io/managed-by": "sppo"},
        "annotations": dict(template.get("annotations", {})),
        "ownerReferences": [owner],
    }
    spec = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "affinity": _beside(run),
        "containers": [container],
        "volumes": [workspace_volume(run)],
        **{field: template[field] for field in POD_FIELDS if field in template},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _container(run: Run, status: Mapping[str, Any], records: Records) -> Manifest:
    # That of the newest attempt wrote what is read; the status may have one by now that no attempt has run.
    ran = [attempt.image for step in in_order(records) for attempt in records[step].newest if attempt.image]
    image = run.spec.get("image") or (ran[-1] if ran else status.get("image"))
    if not image:
        raise UnreadError("the run has no image yet: wait until its first stage has begun")
    best = best_iteration(records)
    command = ["python", "-m", "sppo_trainer.results", f"{WORKSPACE}/{run.namespace}/{run.name}"]
    command += ["--digest", status.get("digest") or run.digest()]
    command += ["--samples", str(best)] if best is not None else []
    return {
        "name": CONTAINER,
        "image": image,
        "command": command,
        "env": [{"name": "HOME", "value": HOME}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        # Not in the volume itself: some drivers cannot attach a disk twice, once to read and once to write.
        "volumeMounts": [{"name": WORKSPACE_VOLUME, "mountPath": WORKSPACE, "readOnly": True}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
    }


def fetched_from(log: str) -> Fetched:
    """The document in a pod's log, its parts checked. Raises UnreadError if there is none."""
    lines = [line for line in log.splitlines() if line.startswith('{"results"')]
    try:
        document = read_json(lines[-1]) if lines else None
    except (ValueError, RecursionError) as error:
        raise UnreadError("the pod's log has no whole document: try again") from error
    if not isinstance(document, dict) or document.get("results") != DOCUMENT:
        raise UnreadError("the pod's log has no document that this command reads: use the sppo of the run's operator")
    missing = [str(sentence) for sentence in _list(document.get("damaged"))]
    curves, samples, made = (_checked(document, part, check, missing) for part, check in PARTS.items())
    missing += _thinned(_object(document.get("every")))
    return Fetched(all_curves=curves, all_samples=samples, all_made=made, missing=tuple(missing))


PARTS: Mapping[str, Callable[[Any], Any]] = {"curves": curves_in, "samples": samples_in, "made": made_in}


def _checked(document: Mapping[str, Any], part: str, check: Callable[[Any], Any], missing: list[str]) -> dict[str, Any]:
    """What is whole of a part; the names of the rest go to `missing`."""
    checked = {key: check(value) for key, value in _object(document.get(part)).items()}
    missing += [f"{part} of {key} are not what this command reads." for key, value in checked.items() if value is None]
    return {key: value for key, value in checked.items() if value is not None}


def _thinned(every: Mapping[str, Any]) -> list[str]:
    """A sentence for all iterations whose curves have one step of as many."""
    alike: dict[str, list[str]] = {}
    for number, steps in every.items():
        alike.setdefault(str(steps), []).append(number)
    return [
        f"Of the curves of {_iterations(numbers)}, one step of {steps} was read." for steps, numbers in alike.items()
    ]


def _iterations(numbers: Sequence[str]) -> str:
    first, *others = numbers
    return f"{len(numbers)} iterations ({first} to {others[-1]})" if others else f"iteration {first}"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _beside(run: Run) -> Manifest:
    """Rather on the node of the run's own pods: a claim may be mountable on one node at a time."""
    term = {"labelSelector": {"matchLabels": {RUN_LABEL: run.name}}, "topologyKey": "kubernetes.io/hostname"}
    return {
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    }


async def _log_of(
    api: Api,
    pod: Manifest,
    say: Callable[[str], object],
    sleep: Callable[[float], Awaitable[object]],
    clock: Callable[[], float],
) -> str:
    """The log of the pod, which is created before and deleted after. Raises UnreadError."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    path = f"{pods(namespace)}/{name}"
    refused = False
    try:
        await api.create(pods(namespace), pod)
        ended = await _ended(api, path, sleep, clock)
        log = await api.text(pod_log(namespace, name), LOG_SECONDS, container=CONTAINER)
    except ApiError as error:
        refused = isinstance(error, ForbiddenError | RefusedError) and error.call.startswith("create")
        needed = f"create, get and delete of pods and get of pods/log in namespace {namespace} are needed"
        remedy = f"; {needed}" if isinstance(error, ForbiddenError) else ""
        raise UnreadError(f"{one_line(error.message, QUOTED_CHARACTERS)}{remedy}") from error
    finally:
        # Also after Ctrl-C, and where it is not known whether the creation came through.
        if not refused:
            await _remove(api, path, say)
    if ended.get("exitCode") != 0:
        raise UnreadError(_why_it_failed(ended, log, pod))
    return log


async def _ended(
    api: Api, path: str, sleep: Callable[[float], Awaitable[object]], clock: Callable[[], float]
) -> Mapping[str, Any]:
    """How the container ended. Raises UnreadError if it does not in time."""
    began, hopeless = clock(), None
    while True:
        pod = await api.get(path)
        if (ended := stage_state(pod, "terminated")) is not None:
            return ended
        if has_ended(pod):
            says = pod["status"].get("message") or pod["status"].get("reason") or "its node ended it"
            raise UnreadError(f"the pod ended before its work: {one_line(says, QUOTED_CHARACTERS)}")
        why = next((trouble.sentence for trouble in troubles_of(pod, LIKE.value)), "") if _is_pending(pod) else ""
        hopeless = (hopeless or clock()) if why and _is_hopeless(pod, why) else None
        if hopeless is not None and clock() - hopeless >= HOPELESS_SECONDS:
            raise UnreadError(why)
        if clock() - began >= WAIT_SECONDS:
            raise UnreadError(f"it took more than {WAIT_SECONDS:.0f} s: {why or 'the pod is still at work'}")
        await sleep(POLL_SECONDS)


def _is_pending(pod: Mapping[str, Any]) -> bool:
    return bool(pod.get("status", {}).get("phase", "Pending") == "Pending")


def _is_hopeless(pod: Mapping[str, Any], why: str) -> bool:
    """Whether only somebody's help brings the pod on: other waits end when a node or a volume comes."""
    return (stage_state(pod, "waiting") or {}).get("reason") in CONTAINERS or "not found" in why


async def _remove(api: Api, path: str, say: Callable[[str], object]) -> None:
    try:
        await api.delete(path, uid=(await api.get(path))["metadata"]["uid"])
    except NotFoundError:
        return
    except ApiError as error:
        say(
            f"warning: {path.rpartition('/')[2]} could not be deleted ({one_line(error.message, QUOTED_CHARACTERS)}): "
            f"it ends by itself within {DEADLINE_SECONDS} s; delete it with kubectl delete pod"
        )


def _why_it_failed(ended: Mapping[str, Any], log: str, pod: Manifest) -> str:
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    if "No module named" in last:
        return f"the image {pod['spec']['containers'][0]['image']} is older than this command and cannot be asked"
    code = ended.get("exitCode")
    return f"exit code {code}: {one_line(last.removeprefix('error: '), QUOTED_CHARACTERS)}"
