"""Reading a run's claim with a pod: what comes back, what is said when nothing does, and that no pod stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from simulated_api import Call, Object, SimulatedApi
from sppo_operator.api import CALL_SECONDS
from sppo_operator.commands.reader import WAIT_SECONDS, Fetched, fetch, reader_pod
from sppo_operator.decide import Stage, Step
from sppo_operator.errors import ForbiddenError, UnavailableError
from told import RESOURCE, full

SAMPLE = {"prompt": "p", "before": "b", "after": "a", "scoreBefore": 0.5, "scoreAfter": None, "winRate": 0.7, "rank": 1}
DOCUMENT: dict[str, Any] = {
    "results": 1,
    "made": {"i1/train": {"result": {"steps": 3}, "contentDigest": "d", "provenance": {"host": "h"}}},
    "curves": {"1": {"loss": [1, None]}},
    "every": {},
    "samples": {"2": [SAMPLE]},
    "damaged": [],
}
TRAINED = Step(1, Stage.TRAIN)


def run() -> Object:
    of = full()[0]
    return of | {"metadata": of["metadata"] | {"uid": "u-1"}}


class Cluster(SimulatedApi):
    """A cluster whose pods come on with every look at them; time passes while the command sleeps."""

    def __init__(self, states: list[Object], log: str = "") -> None:
        super().__init__()
        self.states: Iterator[Object] = iter(states)
        self.log = log
        self.log_seconds = 0.0
        """How long the log takes to come."""
        self.said: list[str] = []
        self.seconds = 0.0
        self.admission = lambda pod: pod.update(status={"phase": "Pending"})

    def left(self) -> list[Object]:
        """Pods that nobody asked to go."""
        return [pod for pod in self.all("pods") if "deletionTimestamp" not in pod["metadata"]]

    def log_of(self, pod: Object) -> str:
        return self.log

    async def text(self, path: str, seconds: float | None = None, /, **query: str) -> str:
        if (seconds or CALL_SECONDS) < self.log_seconds:
            raise UnavailableError("no answer from the API server")
        return await super().text(path, **query)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.seconds += seconds
        for pod in self.all("pods"):
            if state := next(self.states, None):
                self.change(pod, "status", **state)

    def fetched(self) -> Fetched:
        return asyncio.run(self.fetch())

    async def fetch(self) -> Fetched:
        return await fetch(self, run(), self.said.append, sleep=self.sleep, clock=lambda: self.seconds)  # type: ignore[arg-type]


def container(**state: Any) -> Object:
    return {"containerStatuses": [{"name": "stage", "state": state}]}


def unscheduled(message: str) -> Object:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


PULLING = {"conditions": [{"type": "PodScheduled", "status": "True"}]} | container(
    waiting={"reason": "ContainerCreating"}
)
RUNNING = container(running={}) | {"phase": "Running"}


def ended(code: int) -> Object:
    return container(terminated={"exitCode": code}) | {"phase": "Succeeded" if code == 0 else "Failed"}


def test_everything_comes_back_and_the_pod_goes() -> None:
    cluster = Cluster([PULLING, RUNNING, ended(0)], log=f"a warning\n{json.dumps(DOCUMENT)}\n")
    found = cluster.fetched()
    assert (found.missing, found.curves(1), found.samples(2)) == ((), {"loss": [1, None]}, [SAMPLE])
    made = found.made(TRAINED)
    assert made is not None
    assert made.metrics == {"steps": 3}
    assert (found.curves(2), found.samples(1), found.made(Step(2, Stage.TRAIN))) == ({}, [], None)
    assert cluster.left() == []
    (said,) = cluster.said
    assert said.startswith("Reading curves and answers from the run's claim (pod demo-report-")


SCHEDULED = {"conditions": [{"type": "PodScheduled", "status": "True"}]}
NO_IMAGE = SCHEDULED | container(waiting={"reason": "ImagePullBackOff", "message": "no such manifest"})
DAMAGED = DOCUMENT | {
    "damaged": ["i2/train is damaged"],
    "every": {"1": 3},
    "curves": {"1": "loss"},
    "samples": {"2": [{}]},
}
FAILURES: dict[str, tuple[list[Object], str, str]] = {
    "no image": ([NO_IMAGE] * 99, "", "cannot start (ImagePullBackOff: no such manifest): correct spec.image"),
    "no claim": (
        [unscheduled('persistentvolumeclaim "models" not found')] * 99,
        "",
        'finds no node (persistentvolumeclaim "models" not found): create the claim',
    ),
    "no room": (
        [unscheduled("0/1 nodes are available: 1 Insufficient cpu")] * 999,
        "",
        f"it took more than {WAIT_SECONDS:.0f} s: pod demo-report-",
    ),
    "never ends": ([RUNNING] * 999, "", f"it took more than {WAIT_SECONDS:.0f} s: the pod is still at work"),
    "evicted": ([{"phase": "Failed", "reason": "Evicted"}], "", "the pod ended before its work: Evicted"),
    "refused by the trainer": (
        [ended(65)],
        "error: /workspace/lab/demo belongs to a run with other immutable fields",
        "exit code 65: /workspace/lab/demo belongs to a run with other immutable fields",
    ),
    "silent": ([ended(137)], "", "exit code 137: it said nothing"),
    "old image": (
        [ended(1)],
        "/opt/sppo/bin/python: No module named sppo_trainer.results\n",
        "the image registry.example/sppo-trainer:0.1.0@sha256:",
    ),
    "torn log": ([ended(0)], json.dumps(DOCUMENT)[:-9], "the pod's log has no whole document: try again"),
    "no document": ([ended(0)], "hello", "the pod's log has no document that this command reads"),
    "another version": ([ended(0)], '{"results": 2}', "the pod's log has no document that this command reads"),
    "damaged parts": ([ended(0)], json.dumps(DAMAGED), "i2/train is damaged"),
}


@pytest.mark.parametrize(("states", "log", "why"), FAILURES.values(), ids=FAILURES)
def test_what_is_missing_says_why_and_the_pod_goes(states: list[Object], log: str, why: str) -> None:
    cluster = Cluster(states, log=log)
    found = cluster.fetched()
    assert why in found.missing[0]
    assert cluster.said[1].startswith(f"warning: not in the report: {found.missing[0]}")
    assert (found.curves(1), found.samples(2)) == ({}, [])
    assert cluster.left() == []
    assert cluster.seconds <= WAIT_SECONDS


def test_what_does_not_come_by_itself_is_not_waited_for() -> None:
    cluster = Cluster([NO_IMAGE] * 99)
    cluster.fetched()
    assert cluster.seconds < 15


def test_a_pod_that_was_pulled_in_the_end_is_read() -> None:
    cluster = Cluster([NO_IMAGE] * 5 + [PULLING] * 200 + [ended(0)], log=json.dumps(DOCUMENT))
    assert cluster.fetched().missing == ()


@pytest.mark.parametrize(
    ("every", "sentences"),
    [
        ({"1": 3}, ("Of the curves of iteration 1, one step of 3 was read.",)),
        (
            {"1": 3, "2": 4, "3": 4, "5": 4},
            (
                "Of the curves of iteration 1, one step of 3 was read.",
                "Of the curves of 3 iterations (2 to 5), one step of 4 was read.",
            ),
        ),
        ({"1": [3]}, ("Of the curves of iteration 1, one step of [3] was read.",)),
    ],
    ids=["one", "many", "another shape"],
)
def test_of_thinned_curves_the_report_says_so(every: Object, sentences: tuple[str, ...]) -> None:
    cluster = Cluster([ended(0)], log=json.dumps(DOCUMENT | {"every": every}))
    assert cluster.fetched().missing == sentences


def test_a_large_log_has_time_to_come() -> None:
    cluster = Cluster([ended(0)], log=json.dumps(DOCUMENT))
    cluster.log_seconds = 40.0
    assert cluster.fetched().missing == ()


def test_parts_of_another_shape_are_named() -> None:
    missing = Cluster([ended(0)], log=json.dumps(DAMAGED)).fetched().missing
    assert missing[1:3] == (
        "curves of 1 are not what this command reads.",
        "samples of 2 are not what this command reads.",
    )


def refuse(verb: str, error: Exception, *, after: bool = False) -> Callable[[Call, bool], None]:
    """A disturbance: calls of this verb on pods fail, before or after they did what they do."""

    def disturb(call: Call, done: bool) -> None:
        if call.verb == verb and call.at.plural == "pods" and done is after:
            raise error

    return disturb


def forbidden(verb: str) -> ForbiddenError:
    message = f'pods is forbidden: User "kim" cannot {verb} resource "pods"'
    return ForbiddenError(message, call=f"{verb} /api/v1/namespaces/lab/pods", status=403)


def test_without_the_right_to_create_pods_the_missing_rights_are_named() -> None:
    cluster = Cluster([])
    cluster.disturb = refuse("create", forbidden("create"))
    (missing,) = cluster.fetched().missing
    assert 'User "kim" cannot create resource "pods"; create, get and delete of pods' in missing
    assert "in namespace lab are needed" in missing
    assert [str(call).split("/")[0] for call in cluster.calls] == ["create pods"], "nothing is asked about afterwards"


def test_a_creation_whose_answer_was_lost_leaves_no_pod() -> None:
    cluster = Cluster([])
    cluster.disturb = refuse("create", UnavailableError("no answer"), after=True)
    assert "no answer" in cluster.fetched().missing[0]
    assert cluster.left() == []


def test_a_pod_that_may_not_be_deleted_is_named() -> None:
    cluster = Cluster([ended(0)], log=json.dumps(DOCUMENT))
    cluster.disturb = refuse("delete", forbidden("delete"))
    assert cluster.fetched().missing == ()
    assert cluster.said[1].endswith("it ends by itself within 180 s; delete it with kubectl delete pod")


def test_after_ctrl_c_no_pod_is_left() -> None:
    cluster = Cluster([RUNNING] * 3)

    async def interrupted() -> None:
        task = asyncio.create_task(cluster.fetch())
        while not cluster.all("pods"):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    assert cluster.left() == []


def test_the_pod_can_read_and_nothing_else() -> None:
    spec = RESOURCE["spec"] | {"image": "trainer:2"}
    template = {"tolerations": [{"key": "gpu"}], "imagePullSecrets": [{"name": "s"}], "labels": {"team": "nlp"}}
    spec["stages"] = RESOURCE["spec"]["stages"] | {"prepare": {"template": template}}
    pod = reader_pod(run() | {"spec": spec}, "demo-report-1")
    shown, (reader,) = pod["spec"], pod["spec"]["containers"]
    assert pod["metadata"]["labels"] == {
        "team": "nlp",
        "sppo.dev/report": "demo",
        "app.kubernetes.io/managed-by": "sppo",
    }, "not sppo.dev/run, by which the operator knows its pods"
    assert (reader["image"], reader["volumeMounts"][0]["readOnly"]) == ("trainer:2", True)
    assert [volume["persistentVolumeClaim"] for volume in shown["volumes"]] == [{"claimName": "models"}]
    assert (shown["automountServiceAccountToken"], shown["activeDeadlineSeconds"]) == (False, 180)
    assert reader["command"][3:] == ["/workspace/lab/demo", "--digest", run()["status"]["digest"], "--samples", "2"]
    assert (shown["tolerations"], shown["imagePullSecrets"]) == ([{"key": "gpu"}], [{"name": "s"}])


def test_the_image_is_the_users_choice_or_what_the_newest_attempt_ran() -> None:
    of = run()
    later = of | {"status": of["status"] | {"image": "never-ran:1"}}
    (reader,) = reader_pod(later, "demo-report-1")["spec"]["containers"]
    assert reader["image"].startswith("registry.example/sppo-trainer:0.1.0@sha256:")
    chosen = later | {"spec": of["spec"] | {"image": "mine:1"}}
    assert reader_pod(chosen, "demo-report-1")["spec"]["containers"][0]["image"] == "mine:1"


def test_without_an_image_or_a_claim_no_pod_is_made() -> None:
    for changes, why in (
        ({"status": {}}, "the run has no image yet"),
        ({"spec": RESOURCE["spec"] | {"workspace": {"uri": "s3://bucket"}}}, "spec.workspace.uri is s3://bucket"),
    ):
        api = Cluster([])
        said: list[str] = []
        found = asyncio.run(fetch(api, run() | changes, said.append))  # type: ignore[arg-type]
        assert why in found.missing[0]
        assert api.calls == []
