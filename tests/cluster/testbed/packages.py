"""What the tests take from the distribution: the container runtime, the tools of it and the kubelet, and Prometheus."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from testbed.shell import ClusterError, run

# What is looked for is the program, not the package: other vendors' packages (containerd.io) bring the same ones.
_PROGRAMS = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "mmdebstrap": "mmdebstrap",
    "ethtool": "ethtool",
    "iproute2": "ip",
    "iptables": "iptables",
    "openssl": "openssl",
    "prometheus": "promtool",
    "runc": "runc",
    "socat": "socat",
}
_PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> list[str]:
    """Debian packages that have to be installed."""
    absent = [package for package, program in _PROGRAMS.items() if not shutil.which(program, path=SYSTEM_PATH)]
    return absent if plugin_folder() else [*absent, "containernetworking-plugins"]


def plugin_folder() -> Path | None:
    """Where the CNI plugins lie."""
    return next((folder for folder in _PLUGIN_FOLDERS if (folder / "bridge").exists()), None)


def install() -> None:
    """Installs what is missing; raises ClusterError where that is not possible."""
    _install(missing())


def no_browser() -> str:
    """Installs Chromium if it is missing; says why the report cannot be looked at, if it is missing still."""
    if shutil.which("chromium", path=SYSTEM_PATH):
        return ""
    try:
        _install(["chromium"])
    except ClusterError as error:
        return str(error)
    return ""


def _install(wanted: list[str]) -> None:
    if not wanted:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise ClusterError(f"packages are missing: {' '.join(wanted)}")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", env=env)
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", *wanted, env=env)
