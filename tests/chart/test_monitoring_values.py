"""How metrics are let out, found and alerted on."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from chart_values import EVERYTHING
from helm_chart import CHART, Helm, Object, Values, of_kind, one, pod

ALERTS = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
MONITORS = {"podMonitor": ("PodMonitor", "podMetricsEndpoints"), "serviceMonitor": ("ServiceMonitor", "endpoints")}


def policy(helm: Helm, **values: Any) -> Object:
    found: Object = one(helm.render({"networkPolicy": values}), "NetworkPolicy")["spec"]
    return found


def test_prometheus_may_scrape_and_nobody_else_may_come_in(helm: Helm) -> None:
    [rule] = policy(helm)["ingress"]
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert rule["from"] == [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}
    ]


def test_whoever_may_scrape_can_be_chosen(helm: Helm) -> None:
    peers = [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"podSelector": {}}]
    assert [rule["from"] for rule in policy(helm, ingressFrom=peers)["ingress"]] == [peers]


def test_no_peers_are_nobody_rather_than_everybody(helm: Helm) -> None:
    """To NetworkPolicy an empty `from` is everybody."""
    found = policy(helm, ingressFrom=[])
    assert (found["ingress"], found["policyTypes"]) == ([], ["Ingress", "Egress"])


def test_dns_and_the_api_server_may_be_asked(helm: Helm) -> None:
    dns, api = policy(helm)["egress"]
    assert dns == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert api == {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]}


def test_the_api_server_can_be_named(helm: Helm) -> None:
    _, api = policy(helm, apiServerPorts=[8443], apiServerCIDRs=["192.0.2.10/32"])["egress"]
    assert api == {"ports": [{"port": 8443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}]}


def test_the_policy_can_be_left_out(helm: Helm) -> None:
    assert of_kind(helm.render({"networkPolicy": {"enabled": False}}), "NetworkPolicy") == []


@pytest.mark.parametrize("monitor", MONITORS)
def test_a_scrape_may_take_as_long_as_the_interval(helm: Helm, monitor: str) -> None:
    kind, endpoints = MONITORS[monitor]
    chosen = {"enabled": True, "interval": "1m", "scrapeTimeout": "60s"}
    [endpoint] = one(helm.render({"metrics": {monitor: chosen}}), kind)["spec"][endpoints]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("1m", "60s")


@pytest.mark.parametrize("monitor", MONITORS)
def test_a_monitor_scrapes_the_port_of_metrics_and_leaves_the_namespaces_of_runs_alone(
    helm: Helm, monitor: str
) -> None:
    kind, endpoints = MONITORS[monitor]
    items = helm.render(
        {"metrics": {monitor: {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}}}}
    )
    found = one(items, kind)
    assert found["metadata"]["labels"]["release"] == "prometheus"
    assert found["spec"][endpoints] == [{"port": "http", "path": "/metrics", "interval": "15s", "honorLabels": True}]
    assert {item["kind"] for item in items} & {"PodMonitor", "ServiceMonitor"} == {kind}
    label = found["spec"]["jobLabel"]
    jobs = [
        pod(items)["metadata"]["labels"][label],
        *(item["metadata"]["labels"][label] for item in of_kind(items, "Service")),
    ]
    assert set(jobs) == {"sppo-operator"}


def test_only_a_service_monitor_has_a_service_and_finds_it(helm: Helm) -> None:
    items = helm.render({"metrics": {"serviceMonitor": {"enabled": True}}})
    service = one(items, "Service")
    [port] = service["spec"]["ports"]
    assert port["targetPort"] in [found["name"] for found in pod(items)["spec"]["containers"][0]["ports"]]
    [endpoint] = one(items, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]
    wanted = one(items, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    assert of_kind(helm.render({"metrics": {"podMonitor": {"enabled": True}}}), "Service") == []


def alerts(values: Values, helm: Helm) -> dict[str, Object]:
    rule = one(helm.render({"prometheusRule": {"enabled": True} | values}), "PrometheusRule")
    return {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}


def test_alerts_are_those_of_the_file_with_their_own_templates(helm: Helm) -> None:
    expected = {alert["alert"]: alert for group in ALERTS["groups"] for alert in group["rules"]}
    assert len(expected) >= 7
    assert any("{{ $labels.run }}" in alert["annotations"]["description"] for alert in expected.values())
    assert alerts({}, helm) == expected


def test_runbooks_are_where_the_user_has_them(helm: Helm) -> None:
    for name, alert in alerts({"runbookBase": "https://git.example.com/sppo/"}, helm).items():
        assert alert["annotations"]["runbook_url"] == f"https://git.example.com/sppo/docs/runbooks.md#{name.lower()}"


def test_prometheus_selects_rules_by_label(helm: Helm) -> None:
    assert one(helm.render(EVERYTHING), "PrometheusRule")["metadata"]["labels"]["release"] == "prometheus"
