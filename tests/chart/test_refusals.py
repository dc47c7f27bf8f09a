"""Wrong values: Helm refuses them before anything is installed, and says which value is wrong and why."""

from __future__ import annotations

from typing import Any

import pytest
from helm_chart import Helm, Values

BOTH_MONITORS = {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}
REFUSED: dict[str, tuple[Values, str]] = {
    "unknown value": ({"replica": 2}, "additional properties 'replica' not allowed"),
    "a value taken away": ({"workers": None}, "'': missing property 'workers'"),
    "what keeps all runs taken away": ({"crds": {"keep": None}}, "'/crds': missing property 'keep'"),
    "ports taken away, which would be all": (
        {"networkPolicy": {"apiServerPorts": None}},
        "'/networkPolicy': missing property 'apiServerPorts'",
    ),
    "a section taken away": ({"podDisruptionBudget": None}, "'': missing property 'podDisruptionBudget'"),
    "unknown value inside": ({"image": {"name": "x"}}, "'/image': additional properties 'name' not allowed"),
    "no replica": ({"replicas": 0}, "'/replicas': value must be one of 1, 2"),
    "three replicas": ({"replicas": 3}, "'/replicas': value must be one of 1, 2"),
    "a word for a number": ({"workers": "four"}, "'/workers': got string, want integer"),
    "too many workers": ({"workers": 65}, "'/workers': maximum: got 65, want 64"),
    "a word for a switch": ({"crds": {"enabled": "yes"}}, "'/crds/enabled': got string, want boolean"),
    "a tag with a name": ({"image": {"tag": "sppo:1"}}, "'/image/tag': 'sppo:1' does not match pattern"),
    "a repository with upper case": ({"image": {"repository": "Team/sppo"}}, "'/image/repository': 'Team/sppo'"),
    "a short digest": ({"trainer": {"image": {"digest": "sha256:abc"}}}, "'/trainer/image/digest': 'sha256:abc'"),
    "a policy of pulling": ({"image": {"pullPolicy": "always"}}, "'/image/pullPolicy': value must be one of 'Always'"),
    "a level of logs": ({"logLevel": "INFO"}, "'/logLevel': value must be one of 'debug'"),
    "a format of logs": ({"logFormat": "text"}, "'/logFormat': value must be one of 'plain', 'json'"),
    "a pattern of namespaces": ({"watchNamespace": "team-*"}, "'/watchNamespace': 'team-*' does not match pattern"),
    "a space between namespaces": ({"watchNamespace": "a, b"}, "'/watchNamespace': 'a, b' does not match pattern"),
    "a name in upper case": ({"fullnameOverride": "SPPO"}, "'/fullnameOverride': 'SPPO' does not match pattern"),
    "a pull secret's name alone": ({"imagePullSecrets": ["registry"]}, "'/imagePullSecrets/0': got string, want object"),
    "a number as a label": ({"extraLabels": {"tier": 1}}, "'/extraLabels/tier': got number, want string"),
    "a label's key": ({"podLabels": {"a b": "c"}}, "'/podLabels': additional properties 'a b' not allowed"),
    "a label's text": ({"podLabels": {"a": "b c"}}, "'/podLabels/a': 'b c' does not match pattern"),
    "an amount": ({"resources": {"limits": {"memory": "512 MB"}}}, "'/resources/limits/memory': '512 MB'"),
    "less than nothing": ({"resources": {"limits": {"memory": -1}}}, "'/resources/limits/memory': minimum: got -1, want 0"),
    "less than nothing, as text": ({"resources": {"limits": {"memory": "-1Gi"}}}, "'/resources/limits/memory': '-1Gi'"),
    "a flag without dashes": ({"extraArgs": ["relist-seconds=30"]}, "'/extraArgs/0': 'relist-seconds=30'"),
    "a variable without a name": ({"env": [{"value": "x"}]}, "'/env/0': missing property 'name'"),
    "a toleration's field": ({"tolerations": [{"keys": "x"}]}, "'/tolerations/0': additional properties 'keys'"),
    "an affinity's field": ({"affinity": {"node": {}}}, "'/affinity': additional properties 'node' not allowed"),
    "a term without its key": (
        {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["a"]}]}}},
        "'/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0': missing property 'topologyKey'",
    ),
    "a constraint without its key": (
        {"topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]},
        "'/topologySpreadConstraints/0': missing property 'topologyKey'",
    ),
    "a security context's field": (
        {"securityContext": {"readOnlyRootFileSystem": True}},
        "'/securityContext': additional properties 'readOnlyRootFileSystem' not allowed",
    ),
    "a peer of nobody": ({"networkPolicy": {"ingressFrom": [{}]}}, "'/networkPolicy/ingressFrom/0': minProperties"),
    "a port": ({"networkPolicy": {"apiServerPorts": [70000]}}, "'/networkPolicy/apiServerPorts/0': maximum"),
    "no port": ({"networkPolicy": {"apiServerPorts": []}}, "'/networkPolicy/apiServerPorts': minItems"),
    "an address without its length": (
        {"networkPolicy": {"apiServerCIDRs": ["192.0.2.1"]}},
        "'/networkPolicy/apiServerCIDRs/0': '192.0.2.1' does not match pattern",
    ),
    "a length that no address has": (
        {"networkPolicy": {"apiServerCIDRs": ["192.0.2.0/33"]}},
        "'/networkPolicy/apiServerCIDRs/0': '192.0.2.0/33' does not match pattern",
    ),
    "an address that is none": (
        {"networkPolicy": {"ingressFrom": [{"ipBlock": {"cidr": "192.0.256.0/24"}}]}},
        "'/networkPolicy/ingressFrom/0/ipBlock/cidr': '192.0.256.0/24' does not match pattern",
    ),
    "a peer of two kinds": (
        {"networkPolicy": {"ingressFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}, "namespaceSelector": {}}]}},
        "networkPolicy.ingressFrom has a peer with an ipBlock and a selector, which Kubernetes refuses: make two peers of it",
    ),
    "a scrape that takes longer than the interval": (
        {"metrics": {"podMonitor": {"interval": "30s", "scrapeTimeout": "1m"}}},
        "metrics.podMonitor.scrapeTimeout is 1m, and Prometheus refuses what is longer than the interval: choose at most 30s",
    ),
    "a scrape that takes no time": (
        {"metrics": {"serviceMonitor": {"scrapeTimeout": "0s"}}},
        "'/metrics/serviceMonitor/scrapeTimeout': '0s' does not match pattern",
    ),
    "an interval without a unit": (
        {"metrics": {"podMonitor": {"interval": "30"}}},
        "'/metrics/podMonitor/interval': '30' does not match pattern",
    ),
    "an interval that alerts do not bridge": (
        {"metrics": {"serviceMonitor": {"interval": "10m"}}},
        "'/metrics/serviceMonitor/interval': '10m' does not match pattern",
    ),
    "no interval": (
        {"metrics": {"podMonitor": {"interval": "0s"}}},
        "'/metrics/podMonitor/interval': '0s' does not match pattern",
    ),
    "a runbook base without a slash": (
        {"prometheusRule": {"runbookBase": "https://example.com/sppo"}},
        "'/prometheusRule/runbookBase': 'https://example.com/sppo' does not match pattern",
    ),
    "both monitors": (
        BOTH_MONITORS,
        "metrics.podMonitor.enabled and metrics.serviceMonitor.enabled are both true, and every pod would be scraped twice: choose one",
    ),
    "no service account": (
        {"serviceAccount": {"create": False}},
        "serviceAccount.name is empty, and serviceAccount.create is false: name the account that the operator uses",
    ),
    "a label of the chart": (
        {"extraLabels": {"app.kubernetes.io/name": "x"}},
        "extraLabels has app.kubernetes.io/name, which is set without you: choose another label",
    ),
    "a label of Helm": (
        {"podLabels": {"app.kubernetes.io/managed-by": "me"}},
        "podLabels has app.kubernetes.io/managed-by, which is set without you: choose another label",
    ),
    "a label of a ReplicaSet": (
        {"podLabels": {"pod-template-hash": "1"}},
        "podLabels has pod-template-hash, which is set without you: choose another label",
    ),
    "a label of the chart, for a monitor": (
        {"metrics": {"podMonitor": {"labels": {"app.kubernetes.io/component": "x"}}}},
        "metrics.podMonitor.labels has app.kubernetes.io/component, which is set without you",
    ),
    "a flag of another value": ({"extraArgs": ["--workers=8"]}, "extraArgs has --workers: set the value workers instead"),
    "a flag of the probes": ({"extraArgs": ["--http-port=9"]}, "extraArgs has --http-port, which the chart's probes and"),
    "a variable of the chart": ({"env": [{"name": "POD_NAME", "value": "x"}]}, "env has POD_NAME, which the chart sets"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_values_are_refused(helm: Helm, values: dict[str, Any], message: str) -> None:
    assert message in helm.refusal(values)


@pytest.mark.parametrize("name", ["unknown value", "three replicas", "both monitors"])
def test_helm_3_refuses_them_too(helm_3: Helm, name: str) -> None:
    values, message = REFUSED[name]
    assert message in helm_3.refusal(values)
