from __future__ import annotations

import pytest
from sppo_operator.errors import UserError
from sppo_operator.settings import Settings

POD = {"SPPO_TRAINER_IMAGE": "trainer:1", "POD_NAMESPACE": "sppo-system", "POD_NAME": "operator-x1"}


def test_a_deployment_needs_no_flags() -> None:
    assert Settings.parse([], POD) == Settings(
        image="trainer:1", lease_namespace="sppo-system", identity="operator-x1", namespaces=(), workers=4
    )


def test_flags_win_over_the_environment() -> None:
    flags = "--image trainer:2 --namespace b --namespace a --namespace b --lease-namespace c --identity me"
    settings = Settings.parse(flags.split(), POD | {"SPPO_WATCH_NAMESPACE": "z"})
    assert settings == Settings(image="trainer:2", namespaces=("b", "a"), lease_namespace="c", identity="me")


@pytest.mark.parametrize(
    ("text", "namespaces"),
    [("", ()), ("team", ("team",)), ("team-a, team-b,", ("team-a", "team-b"))],
    ids=["all", "one", "several"],
)
def test_namespaces_of_the_environment(text: str, namespaces: tuple[str, ...]) -> None:
    assert Settings.parse([], POD | {"SPPO_WATCH_NAMESPACE": text}).namespaces == namespaces


def test_two_processes_without_a_pod_name_are_told_apart() -> None:
    environment = {**POD, "POD_NAME": ""}
    assert Settings.parse([], environment).identity != Settings.parse([], environment).identity


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ("", {**POD, "SPPO_TRAINER_IMAGE": ""}, "no trainer image is set: give --image or SPPO_TRAINER_IMAGE the image"),
        ("", {**POD, "POD_NAMESPACE": ""}, "give --lease-namespace or POD_NAMESPACE one"),
        ("--wrokers 3", POD, "unrecognized arguments: --wrokers 3: see"),
        ("--work 3", POD, "unrecognized arguments: --work 3: see"),
        ("--workers 0", POD, "--workers: '0' is no whole number from 1 to 64"),
        ("--workers four", POD, "--workers: 'four' is no whole number from 1 to 64"),
        ("--http-port 70000", POD, "--http-port: '70000' is no whole number from 0 to 65535"),
        ("--log-level loud", POD, "--log-level: invalid choice: 'loud'"),
        ("--namespace team-*", POD, "--namespace 'team-*' is no name of a namespace: repeat the flag"),
        ("--renew-seconds 15", POD, "--lease-seconds 15, --renew-seconds 15 and --retry-seconds 2 leave a leader no time"),
        ("--retry-seconds 10", POD, "each must be larger than the next"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(flags: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Settings.parse(flags.split(), environment)
    assert message in str(caught.value)
