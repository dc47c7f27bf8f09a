"""What a stage's template does to its pods, field by field."""

from __future__ import annotations

import pytest
from sppo_operator.decide import Stage
from stage_jobs import env, job, pod, with_template

POD_SETTINGS = {
    "nodeSelector": {"gpu": "h100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "research",
    "runtimeClassName": "nvidia",
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
}


@pytest.mark.parametrize("field", POD_SETTINGS)
def test_the_template_reaches_the_pods_of_its_stage(field: str) -> None:
    change = with_template(Stage.GENERATE, **{field: POD_SETTINGS[field]})
    assert pod(job(Stage.GENERATE, change)) == pod(job(Stage.GENERATE)) | {field: POD_SETTINGS[field]}
    assert job(Stage.SCORE, change) == job(Stage.SCORE)


def test_resources_go_through_unchanged() -> None:
    resources = {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"nvidia.com/gpu": 1}}
    container = pod(job(Stage.TRAIN, with_template(Stage.TRAIN, resources=resources)))["containers"][0]
    assert container["resources"] == resources


def test_volumes_come_after_ours() -> None:
    volume, mount = {"name": "data", "configMap": {"name": "data"}}, {"name": "data", "mountPath": "/data"}
    before, after = (
        job(Stage.SCORE),
        job(Stage.SCORE, with_template(Stage.SCORE, volumes=[volume], volumeMounts=[mount])),
    )
    assert pod(after)["volumes"] == [*pod(before)["volumes"], volume]
    mounts = pod(before)["containers"][0]["volumeMounts"]
    assert pod(after)["containers"][0]["volumeMounts"] == [*mounts, mount]


def test_labels_and_annotations_are_the_pods_and_replace_none_of_ours() -> None:
    labels = {"team": "a", "app.kubernetes.io/managed-by": "somebody", "sppo.dev/run": "another"}
    manifest = job(Stage.SCORE, with_template(Stage.SCORE, labels=labels, annotations={"note": "x"}))
    assert manifest["metadata"] == job(Stage.SCORE)["metadata"]
    metadata = manifest["spec"]["template"]["metadata"]
    assert metadata == {"labels": {"team": "a"} | manifest["metadata"]["labels"], "annotations": {"note": "x"}}


def test_a_variable_of_the_template_replaces_ours_and_may_refer_to_ours() -> None:
    theirs = [{"name": "OMP_NUM_THREADS", "value": "8"}, {"name": "HF_HOME", "value": "$(HOME)/hf"}]
    values = env(job(Stage.GENERATE, with_template(Stage.GENERATE, env=theirs)))
    assert values["OMP_NUM_THREADS"] == "8"
    assert list(values).index("HOME") < list(values).index("HF_HOME")
