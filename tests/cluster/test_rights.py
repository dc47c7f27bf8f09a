"""Each right of the operator is there for a reason: without it, one thing does not come about, which does with all.

An operator runs for each right, as a process of this machine in a namespace of its own, and lacks just this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from lab import Lab, Object, condition, stage
from namespaces import Namespace
from operator_process import Right, operator_process, rights
from operators import LEASE, Operator
from standin_notes import eventually
from standin_runs import failing, standin

RIGHTS = {str(right): right for right in rights()}
AT_ONCE = 8
"""Operators, each of which starts for seconds of processor time."""
HELD = failing("prepare:0:hold")
RUNS = {
    "held": standin("held", stages=HELD),
    "suspended": standin("suspended", stages=HELD),
    "bereft": standin("bereft", stages=HELD),
    "brief": standin("brief", stages=failing("generate:1:hold"), retention={"finishedJobsSeconds": 0}),
    "crowd": standin("crowd", stages={"train": {"workers": 2}}, evaluation={"parallel": False}),
}
QUEUED = standin("queued", queue={"name": "nobody-made-it"})
WHY = "LocalQueue nobody-made-it doesn't exist"
Objects = Mapping[str, Object]


@dataclass(frozen=True)
class Use:
    """What a right is for."""

    run: str
    """The run that needs it, by name."""
    plural: str
    comes_about: Callable[[Objects], Any]
    """Asked about the objects of that kind in the run's namespace."""


def first_job_exists(jobs: Objects) -> bool:
    return "held-i0-prepare-a1" in jobs


def status_exists(runs: Objects) -> bool:
    return "held" in runs and "status" in runs["held"]


USES = {
    "list spporuns": Use("held", "jobs", first_job_exists),
    "update spporuns/status": Use("held", "spporuns", status_exists),
    "update spporuns/finalizers": Use("held", "jobs", first_job_exists),
    "get jobs": Use("bereft", "jobs", lambda jobs: "bereft-i0-prepare-a2" in jobs),
    "list jobs": Use("held", "jobs", first_job_exists),
    "create jobs": Use("held", "jobs", first_job_exists),
    "patch jobs": Use("suspended", "jobs", lambda jobs: is_suspended(jobs.get("suspended-i0-prepare-a1"))),
    "delete jobs": Use("brief", "jobs", lambda jobs: jobs and "brief-i0-prepare-a1" not in jobs),
    "create services": Use("crowd", "services", lambda services: "crowd-train" in services),
    "list pods": Use("held", "jobs", first_job_exists),
    "get pods/log": Use("held", "spporuns", lambda runs: stage(runs["held"], 0, "prepare").get("progress")),
    "create events": Use("held", "events", lambda events: any(name.startswith("held.") for name in events)),
    "create leases": Use("held", "leases", lambda leases: LEASE in leases),
    "get leases": Use("held", "leases", lambda leases: LEASE in leases),
    "update leases": Use("held", "leases", lambda leases: is_renewed(leases.get(LEASE))),
}
WATCHES = ("watch spporuns", "watch jobs", "watch pods")
ALL = "all rights"
CALLS, MISSED = "sppo_operator_api_calls_total", "sppo_operator_watch_missed_total"


def is_suspended(job: Object | None) -> bool:
    return job is not None and job["spec"]["suspend"]


def is_renewed(lease: Object | None) -> bool:
    return lease is not None and lease["spec"]["renewTime"] > lease["spec"]["acquireTime"]


def refusal(right: Right) -> dict[str, str]:
    """The call that the API server refuses without the right."""
    if right.resource == "spporuns/finalizers":  # admission asks for it, of who makes a Job block a run's deletion
        return {"verb": "create", "resource": "jobs", "code": "403"}
    return {"verb": right.verb, "resource": right.resource, "code": "403"}


def begin(lab: Lab, space: Namespace, name: str) -> None:
    """Apply a run, and do to it what it is there for."""
    space.apply(RUNS[name])
    if name == "suspended":
        lab.until("jobs", space.name, lambda jobs: f"{name}-i0-prepare-a1" in jobs)
        space.patch(name, {"suspend": True})
    if name == "bereft":
        lab.until_run(space.name, name, lambda run: stage(run, 0, "prepare").get("attempts"))
        lab.delete("jobs", space.name, f"{name}-i0-prepare-a1")


def without(lab: Lab, trainer: str, right: Right) -> None:
    """See the operator fail for want of this right."""
    space = Namespace.create(lab, f"without-{right}")
    try:
        with operator_process(lab, space, set(RIGHTS.values()) - {right}, trainer) as operator:
            if right.verb == "watch":
                # What exists before the watch begins is listed.
                eventually(lambda: f'cannot watch resource "{right.resource}"' in operator.log(), 120)
                begin(lab, space, "held")
                operator.until_counted(MISSED, resource=right.resource)
            else:
                use = USES[str(right)]
                begin(lab, space, use.run)
                operator.until_counted(CALLS, **refusal(right))
                seen = {item["metadata"]["name"]: item for item in lab.list(use.plural, space.name)}
                assert not use.comes_about(seen), f"{right} is not needed for this"
    finally:
        space.remove()


def with_all_rights(lab: Lab, trainer: str) -> None:
    space = Namespace.create(lab, "with-all-rights")
    try:
        with operator_process(lab, space, RIGHTS.values(), trainer) as operator:
            for name in RUNS:
                begin(lab, space, name)
            for use in USES.values():
                lab.until(use.plural, space.name, use.comes_about, seconds=120)
            # By then it is known whether a change that the LIST before the last one showed was missed.
            listed = operator.count(CALLS, verb="list", resource="jobs", code="200")
            operator.until_counted(CALLS, at_least=listed + 2, verb="list", resource="jobs", code="200")
            assert operator.count(MISSED) == 0
            assert operator.count(CALLS, code="403") == 0
    finally:
        space.remove()


@pytest.fixture(scope="module")
def trainer(operator: Operator) -> Iterator[str]:
    """The image of the runs; the installed operator leaves them alone."""
    operator.scale(0)
    yield operator.trainer
    operator.scale(2)


@pytest.fixture(scope="module")
def stories(lab: Lab, trainer: str) -> Iterator[dict[str, Future[None]]]:
    """What becomes of an operator without each right, and of one with all."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            ALL: pool.submit(with_all_rights, lab, trainer),
            **{name: pool.submit(without, lab, trainer, RIGHTS[name]) for name in (*WATCHES, *USES) if name in RIGHTS},
        }


def test_every_right_has_a_use() -> None:
    assert sorted(RIGHTS) == sorted([*USES, *WATCHES, "list workloads"])


@pytest.mark.parametrize("name", [*WATCHES, *USES])
def test_without_it_something_is_missing(stories: dict[str, Future[None]], name: str) -> None:
    stories[name].result()


def test_with_all_rights_nothing_is_missing(stories: dict[str, Future[None]]) -> None:
    stories[ALL].result()


def test_with_the_right_to_list_workloads_a_run_says_why_it_waits(lab: Lab, trainer: str, kueue: None) -> None:
    space = Namespace.create(lab, "queued")
    with operator_process(lab, space, RIGHTS.values(), trainer):
        space.apply(QUEUED)
        lab.until_run(space.name, "queued", lambda run: WHY in condition(run, "Queued")["message"])
    space.remove()


def test_without_the_right_to_list_workloads_it_does_not_know(lab: Lab, trainer: str, kueue: None) -> None:
    space = Namespace.create(lab, "queued")
    right = RIGHTS["list workloads"]
    with operator_process(lab, space, set(RIGHTS.values()) - {right}, trainer) as operator:
        space.apply(QUEUED)
        lab.until("workloads", space.name, lambda workloads: any(map(says_why, workloads.values())))
        asked = operator.count(CALLS, **refusal(right))
        operator.until_counted(CALLS, at_least=asked + 2, **refusal(right))  # a whole look at the run since then
        assert "may list workloads" in condition(lab.run(space.name, "queued"), "Queued")["message"]
    space.remove()


def says_why(workload: Object) -> bool:
    return WHY in condition(workload, "QuotaReserved")["message"]
