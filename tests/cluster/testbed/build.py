"""The Go binaries of the cluster and of the chart's tests, built once and cached outside the tree.

The cache is keyed by everything that decides a binary's content, so that a checkout of other versions builds its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.shell import ClusterError, run

TESTS = Path(__file__).resolve().parents[2]
MODULES = TESTS / "cluster"
HOST_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
KUBERNETES_VERSION = "1.34.4"
"""Which k8s.io/kubernetes go.mod pins; a plain `go build` would leave the components without a version to report."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    name: str
    module: str
    """Folder of go.mod, below tests."""
    package: str
    link_flags: str = "-s -w"
    minutes: int
    """About how long a first build takes on two cores."""


_VERSION = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
KUBE = Binary(
    name="kube",
    module="cluster/node",
    package=".",
    link_flags=f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES_VERSION} "
    f"-X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}",
    minutes=6,
)
PAUSE = Binary(name="pause", module="cluster/node", package="./pause", minutes=1)
KUEUE = Binary(name="kueue", module="cluster/kueue", package="sigs.k8s.io/kueue/cmd/kueue", minutes=4)
KWOK = Binary(name="kwok", module="cluster/kwok", package="sigs.k8s.io/kwok/cmd/kwok", minutes=3)
HELM = Binary(
    name="helm",
    module="chart/tools/helm",
    package="helm.sh/helm/v4/cmd/helm",
    link_flags="-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
    minutes=5,
)
_HELM_3 = "helm.sh/helm/v3/pkg/chartutil.k8sVersion"
HELM_3 = Binary(
    name="helm-3",
    module="chart/tools/helm",
    package="helm.sh/helm/v3/cmd/helm",
    # Without a version of Kubernetes it takes 1.20 for granted.
    link_flags="-s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0 "
    f"-X {_HELM_3}Major={_MAJOR} -X {_HELM_3}Minor={_MINOR}",
    minutes=2,
)
KUBE_SCORE = Binary(
    name="kube-score", module="chart/tools/kube-score", package="github.com/zegl/kube-score/cmd/kube-score", minutes=1
)


def kube_binary() -> Path:
    """etcd, the Kubernetes components, kubectl and CoreDNS in one file: `kube kubectl get pods`."""
    return built(KUBE)


def pause_binary() -> Path:
    return built(PAUSE)


def kueue_binary() -> Path:
    return built(KUEUE)


def kwok_binary() -> Path:
    return built(KWOK)


def kueue_module_dir() -> Path:
    """The module's own folder: manifests and CRDs of the same version as the binary."""
    return _module_dir("kueue")


def kwok_module_dir() -> Path:
    return _module_dir("kwok")


OF_THE_CHART = (HELM, HELM_3, KUBE_SCORE)
BINARIES = {binary.name: binary for binary in (KUBE, PAUSE, KUEUE, KWOK, *OF_THE_CHART)}


def cached(binary: Binary) -> Path | None:
    """The binary, if it was built before."""
    path = _path(binary)
    return path if path.exists() else None


def built(binary: Binary) -> Path:
    """The binary, built now if it was not before; raises ClusterError without Go."""
    if found := cached(binary):
        return found
    with _lock():
        return cached(binary) or _build(binary)


def _build(binary: Binary) -> Path:
    if shutil.which("go") is None:
        raise ClusterError(f"Go is missing, and {binary.name} was not built before: install Go and put it on PATH")
    path, began = _path(binary), time.monotonic()
    half = path.with_name(f"building-{path.name}")
    print(f"building {binary.name}, once: about {binary.minutes} minutes on two cores", file=sys.stderr)
    command = ["go", "build", "-buildvcs=false", "-ldflags", binary.link_flags, "-o", str(half), binary.package]
    # Without cgo the binaries are static: the same on every machine, and good for an image FROM scratch.
    env = os.environ | {"CGO_ENABLED": "0"}
    if subprocess.run(command, cwd=TESTS / binary.module, env=env, check=False).returncode:
        raise ClusterError(f"go build of {binary.name} in tests/{binary.module} failed (see above)")
    for older in path.parent.glob(f"{binary.name}-{'[0-9a-f]' * 16}"):
        older.unlink()
    half.rename(path)  # a killed build leaves no file of this name
    print(f"built {binary.name} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return path


def _path(binary: Binary) -> Path:
    folder = TESTS / binary.module
    digest = hashlib.sha256(f"{binary.package} {binary.link_flags}".encode())
    for source in sorted([folder / "go.mod", folder / "go.sum", *folder.rglob("*.go")]):
        digest.update(source.read_bytes())
    return _cache() / f"{binary.name}-{digest.hexdigest()[:16]}"


def cache_folder(name: str) -> Path:
    """A folder, outside of the tree, for what takes long to make."""
    return Path(os.environ.get("SPPO_CACHE") or HOST_CACHE / "sppo-operator") / name


def _cache() -> Path:
    return cache_folder("cluster")


@contextmanager
def _lock() -> Iterator[None]:
    _cache().mkdir(parents=True, exist_ok=True)
    with (_cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _module_dir(name: str) -> Path:
    if shutil.which("go") is None:
        raise ClusterError(f"Go is missing: it keeps the folder of the module sigs.k8s.io/{name}")
    # Unlike `go list -m` this also works when the binary came from a cache and the module was never downloaded.
    found = json.loads(run("go", "-C", MODULES / name, "mod", "download", "-json", f"sigs.k8s.io/{name}"))
    return Path(found["Dir"])
