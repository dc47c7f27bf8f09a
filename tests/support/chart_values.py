"""Values with which users install the chart: one of each kind of installation."""

from __future__ import annotations

from helm_chart import Values

OPERATOR_DIGEST = f"sha256:{'1' * 64}"
TRAINER_DIGEST = f"sha256:{'2' * 64}"
EVERYTHING: Values = {
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"annotations": {"example.com/role": "trainer"}},
    "workers": 16,
    "logLevel": "debug",
    "logFormat": "json",
    "extraArgs": ["--relist-seconds=30", "--logs-per-second=0"],
    "env": [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ],
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "control", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]},
    ]}}},
    "networkPolicy": {"apiServerPorts": [8443], "apiServerCIDRs": ["192.0.2.10/32", "2001:db8::1/128"]},
    "extraLabels": {"example.com/team": "alignment"},
    "podLabels": {"example.com/scrape": "yes"},
    "podAnnotations": {"example.com/note": "A: text, with 'signs'"},
    "metrics": {"podMonitor": {"enabled": True, "interval": "15s", "scrapeTimeout": "15s", "labels": {"release": "prometheus"}}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "runbookBase": "https://git.example.com/sppo/"},
    "dashboards": {"enabled": True, "namespace": "grafana", "annotations": {"grafana_folder": "SPPO"}},
}  # fmt: skip
INSTALLATIONS: dict[str, Values] = {
    "defaults": {},
    "one replica": {"replicas": 1},
    "one namespace, by its administrator": {
        "watchNamespace": "release", "crds": {"enabled": False}, "userRoles": {"enabled": False},
    },
    "two other namespaces": {"watchNamespace": "team-a,team-b"},
    "images by digest": {"image": {"digest": OPERATOR_DIGEST}, "trainer": {"image": {"digest": TRAINER_DIGEST}}},
    "everything, PodMonitor": EVERYTHING,
    "everything, ServiceMonitor": EVERYTHING | {"metrics": {"serviceMonitor": {"enabled": True, "scrapeTimeout": "30s", "labels": {"release": "prometheus"}}}},
    "a cluster that chooses users": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None}},
    "as little as possible": {
        "replicas": 1,
        "crds": {"enabled": False},
        "userRoles": {"enabled": False},
        "serviceAccount": {"create": False, "name": "existing"},
        "topologySpreadConstraints": [],
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "another name": {"fullnameOverride": "alignment"},
}  # fmt: skip
