"""The definitions of PodMonitor, ServiceMonitor and PrometheusRule, made from Prometheus Operator's types as it makes them.

The Go module of these types has no such files; controller-gen, which comes from a module too, writes them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from testbed.build import cache_folder
from testbed.shell import ClusterError, run

_MODULE = Path(__file__).resolve().parents[2] / "chart" / "tools" / "prometheus-operator"
_TYPES = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
_WANTED = ("podmonitors", "servicemonitors", "prometheusrules")


def monitor_definitions() -> Path:
    """A file of manifests, made once: that takes a minute, and Go."""
    digest = hashlib.sha256(b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum", "types.go")))
    path = cache_folder("cluster") / f"monitors-{digest.hexdigest()[:16]}.yaml"
    if path.exists():
        return path
    if shutil.which("go") is None:
        raise ClusterError("Go is missing, and Prometheus Operator's definitions were not made before: install Go")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run("go", "-C", _MODULE, "tool", "controller-gen", "crd", f"paths={_TYPES}", f"output:crd:dir={folder}")
        half = path.with_suffix(f".{Path(folder).name}")
        half.write_text("".join((Path(folder) / f"monitoring.coreos.com_{name}.yaml").read_text() for name in _WANTED))
    half.rename(path)
    return path
