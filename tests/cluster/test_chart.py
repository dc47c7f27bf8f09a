"""The chart on a real cluster, in namespaces with Pod Security `restricted`, with Helm 4 and 3.

There is no earlier release to upgrade from yet. So an earlier version is made of the chart: with a lower version, a resource that
lacks a field, and without its NetworkPolicy. It installs the same operator.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_values import INSTALLATIONS
from helm_chart import CHART, Helm, Values, pod
from helm_release import Release
from lab import Lab, condition, digests
from namespaces import Namespace
from operators import NAME, Operator
from standin_notes import Notes, eventually
from standin_runs import STEPS, failing, standin
from testbed import why_not
from testbed.build import HELM, HELM_3, Binary, built
from testbed.monitors import monitor_definitions

MINUTES = 60.0
RESOURCE = "spporuns.sppo.dev"
WARN = {"pod-security.kubernetes.io/warn": "restricted"}
HOLDS = failing("generate:1:hold:after=1")
SIZE = {"generation": {"chunkPrompts": 2}}
"""Five chunks of prompts."""
NEW_FIELD = {"queue": {"name": "team", "priorityClass": "urgent"}}
"""Of a run; the earlier version does not know the priority class."""


def tool(binary: Binary) -> Path:
    if missing := why_not(binary, building=True):
        pytest.skip(f"no Helm here: {missing}")
    return built(binary)


@pytest.fixture(scope="module")
def bare(operator: Operator) -> Iterator[Operator]:
    """The operator of the other tests, which is not there now."""
    operator.uninstall()
    yield operator
    operator.install()


@dataclass(frozen=True)
class Place:
    """A namespace, and a release in it."""

    space: Namespace
    release: Release
    operator: Operator
    """The release's, once it is installed."""

    def notes(self, run: str) -> Notes:
        return Notes(self.space.folder(run))

    def hold(self, *runs: str) -> None:
        """Bring runs to the middle of a stage."""
        for run in runs:
            self.space.apply(standin(run, **SIZE, stages=HOLDS))
        for run in runs:
            self.notes(run).until_held("generate 1", 2 * MINUTES)

    def finish(self, run: str) -> None:
        """Let a run go on to its end, which is that of a run that nothing disturbed."""
        self.notes(run).release()
        found = self.space.lab.until_over(self.space.name, run, seconds=3 * MINUTES)
        assert condition(found, "Succeeded")["status"] == "True"
        assert self.notes(run).start_counts() == dict.fromkeys(STEPS, 1)
        assert self.notes(run).done_twice() == []
        assert all(digests(found).values())

    def knows(self, spec: Values) -> bool:
        """Whether a run may have these fields."""
        path = f"/apis/sppo.dev/v1alpha1/namespaces/{self.space.name}/spporuns"
        asked = {"dryRun": "All", "fieldValidation": "Strict"}
        return self.space.lab.http.post(path, json=standin("probe", **spec), params=asked).is_success

    def present(self, manifests: list[dict[str, Any]]) -> list[str]:
        """Those of the objects that exist, by resource and name."""
        text = yaml.safe_dump_all(manifests)
        where = ("-n", self.space.name, "--ignore-not-found", "-o", "name")
        return self.space.lab.kubectl("get", "-f", "-", *where, stdin=text).split()

    def warnings(self) -> list[str]:
        """What Helm and the API server warned of, and pods that were refused."""
        events = self.space.lab.list("events", self.space.name)
        return self.release.complaints + [item["message"] for item in events if item["reason"] == "FailedCreate"]


@pytest.fixture
def place(lab: Lab, bare: Operator, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Nothing is installed yet. The test says which Helm it takes if it is not the newest."""
    space = Namespace.create(lab, request.node.name)
    lab.patch("namespaces", "", space.name, {"metadata": {"labels": WARN}})
    release = Release.of(tool(getattr(request, "param", HELM)), bare, space.name, tmp_path)
    yield Place(space, release, Operator(lab, bare.image, bare.trainer, space.name))
    if lab.get("customresourcedefinitions", "", RESOURCE):
        space.end_runs()
    if release.exists():
        release.uninstall()
    lab.kubectl("delete", "crd", RESOURCE, "--ignore-not-found", "--timeout=60s")
    space.discard()


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The chart as it might have been before."""
    folder = shutil.copytree(CHART, tmp_path / "earlier")
    rewrite(folder / "Chart.yaml", lambda about: about.update(version="0.0.1", appVersion="0.0.1"))
    rewrite(folder / "files/crd.yaml", forget_the_new_field)
    rewrite(folder / "values.yaml", lambda values: values.pop("networkPolicy"))
    (folder / "templates/networkpolicy.yaml").unlink()
    (folder / "values.schema.json").unlink()
    return folder


def rewrite(file: Path, change: Callable[[Any], object]) -> None:
    content = yaml.safe_load(file.read_text("utf-8"))
    change(content)
    file.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


def forget_the_new_field(resource: dict[str, Any]) -> None:
    [version] = resource["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del spec["queue"]["properties"]["priorityClass"]


def test_an_upgrade_and_a_rollback_in_mid_run_repeat_no_work(place: Place, earlier: Path, lab: Lab) -> None:
    place.release.install(earlier)
    policy = [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": NAME}}]
    assert not place.knows(NEW_FIELD)
    place.hold("first", "second")

    pods = set(place.operator.pods())
    place.release.upgrade()
    lab.until("pods", place.space.name, pods.isdisjoint)
    eventually(lambda: place.knows(NEW_FIELD), 30)
    assert place.present(policy)
    place.finish("first")

    place.release.rollback(1)
    eventually(lambda: not place.knows(NEW_FIELD), 30)
    assert not place.present(policy)
    place.finish("second")
    assert place.operator.forbidden() == []
    assert place.warnings() == []


@pytest.mark.parametrize("place", [HELM_3], ids=["Helm 3"], indirect=True)
def test_runs_outlive_the_release_and_the_next_one_goes_on_with_them(place: Place, lab: Lab) -> None:
    place.release.install()
    place.hold("demo")
    installed = place.release.objects()
    place.release.uninstall()
    assert place.present(installed) == [f"customresourcedefinition.apiextensions.k8s.io/{RESOURCE}"]
    place.notes("demo").release()
    lab.until("jobs", place.space.name, lambda jobs: is_complete(jobs["demo-i1-generate-a1"]))

    place.release.install()
    place.finish("demo")
    assert place.warnings() == []


def is_complete(job: dict[str, Any]) -> bool:
    return any(item["type"] == "Complete" for item in job["status"].get("conditions", ()))


def test_in_one_namespace_with_one_replica_and_then_with_two(place: Place, lab: Lab) -> None:
    place.release.install(values={"watchNamespace": "release", "replicas": 1, "userRoles": {"enabled": False}})
    cluster_wide = [item["kind"] for item in place.release.objects() if "namespace" not in item["metadata"]]
    assert cluster_wide == ["CustomResourceDefinition"]
    elsewhere = Namespace.create(lab, "elsewhere")
    elsewhere.apply(standin())
    place.hold("demo")
    leader = place.operator.leader()
    place.release.upgrade(values={"replicas": 2})
    assert place.operator.leader() == leader
    lab.delete("pods", place.space.name, leader)
    lab.until("pods", place.space.name, lambda pods: leader not in pods)
    assert place.operator.leader() != leader
    place.finish("demo")
    assert "status" not in lab.run(elsewhere.name, "demo")
    assert place.operator.forbidden() == []
    assert place.warnings() == []
    elsewhere.remove()


def test_a_resource_that_is_not_to_be_kept_goes_with_its_release_and_takes_the_runs(place: Place, lab: Lab) -> None:
    place.release.install(values={"crds": {"keep": False}})
    place.space.apply(standin(suspend=True))
    place.release.uninstall()
    lab.until("customresourcedefinitions", "", lambda definitions: RESOURCE not in definitions)


@pytest.fixture(scope="module")
def judge(lab: Lab) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Has the API server refuse, or warn of, what it would not take without a word; it stores nothing."""
    space = Namespace.create(lab, "chart")
    lab.patch("namespaces", "", space.name, {"metadata": {"labels": WARN}})
    lab.until("serviceaccounts", space.name, lambda accounts: "default" in accounts)
    definitions = str(monitor_definitions())
    lab.kubectl("apply", "--server-side", "-f", definitions)
    lab.kubectl("wait", "--for=condition=Established", "-f", definitions, "--timeout=30s")
    strict = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "--warnings-as-errors")

    def judged(manifests: list[dict[str, Any]]) -> None:
        for manifest in manifests:
            if "namespace" in manifest["metadata"]:  # one that exists
                manifest["metadata"]["namespace"] = space.name
        lab.kubectl("apply", *strict, "-f", "-", stdin=yaml.safe_dump_all(manifests))

    yield judged
    lab.kubectl("delete", "-f", definitions)
    space.discard()


@pytest.mark.parametrize("values", INSTALLATIONS.values(), ids=INSTALLATIONS)
def test_the_api_server_takes_every_object_without_a_warning(judge: Callable[[Any], None], values: Values) -> None:
    manifests = Helm(tool(HELM)).render(values)
    template = pod(manifests)
    # Pod Security only warns of what makes pods. The account may be one that the test does not have.
    alone = {"name": "operator", "namespace": "anywhere", "labels": template["metadata"]["labels"]}
    spec = template["spec"] | {"serviceAccountName": "default"}
    judge([*manifests, {"apiVersion": "v1", "kind": "Pod", "metadata": alone, "spec": spec}])
