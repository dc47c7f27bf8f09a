"""A real Kubernetes node for the cluster tests, built from pinned Go modules and booted without any image registry.

    build       ../node, ../kueue and ../kwok (go.mod, go.sum) -> static binaries in a cache outside the tree
    packages    containerd, runc, CNI plugins and tools, from the distribution
    box         the namespaces in which all of it lives, and why the tear-down is complete
    node        which components are started, in which order; `components` and `config` hold their settings
    kueue, kwok, monitors   what some tests need besides

`python -m testbed up` boots it and `down` removes it. Only etcd's files, images and logs are on disk, below one folder
(SPPO_CLUSTER_STATE, else /var/lib/sppo-cluster). What stays on the machine are installed packages, the cache of built
binaries, and kernel modules that were loaded.
"""

from __future__ import annotations

from testbed.build import KUEUE, KWOK
from testbed.check import why_not
from testbed.images import scratch_image
from testbed.kueue import install_kueue
from testbed.kwok import start_kwok, stop_kwok
from testbed.node import Node
from testbed.shell import ClusterError

__all__ = [
    "KUEUE",
    "KWOK",
    "ClusterError",
    "Node",
    "install_kueue",
    "scratch_image",
    "start_kwok",
    "stop_kwok",
    "why_not",
]
