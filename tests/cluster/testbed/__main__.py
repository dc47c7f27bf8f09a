"""`python -m testbed up|down|status|restart COMPONENT|build NAME...`: the node from the command line."""

from __future__ import annotations

import argparse
import os
import sys
import time

from testbed import ClusterError, Node, install_kueue, start_kwok, why_not
from testbed.build import BINARIES, built


def main() -> None:
    parser = argparse.ArgumentParser(prog="testbed", description="A real Kubernetes node for the cluster tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="build and boot the node; does nothing if it is healthy")
    up.add_argument("--workers", type=int, help="kubelets on this machine (default 1)")
    up.add_argument("--gpus", type=int, default=0, help="pretended nvidia.com/gpu of the first of them")
    up.add_argument("--kueue", action="store_true", help="with Kueue")
    up.add_argument("--kwok", action="store_true", help="with a pretended node whose pods complete at once")
    commands.add_parser("down", help="end the node and remove everything")
    commands.add_parser("status", help="list the components")
    commands.add_parser("restart", help="kill a component and start it again").add_argument("component")
    builder = commands.add_parser("build", help="only build, which needs Go and no root")
    builder.add_argument("names", nargs="*", default=["kube", "pause"], help=", ".join(BINARIES))
    arguments = parser.parse_args()
    try:
        _COMMANDS[arguments.command](arguments)
    except ClusterError as error:
        raise SystemExit(f"testbed: {error}") from error


def _up(arguments: argparse.Namespace) -> None:
    if reason := why_not(building=True):
        raise ClusterError(reason)
    node, began = Node(workers=arguments.workers), time.monotonic()
    node.start()
    if arguments.gpus:
        node.pretend_gpus(arguments.gpus)
    if arguments.kueue:
        install_kueue(node)
    if arguments.kwok:
        start_kwok(node)
    print(f"ready after {time.monotonic() - began:.0f} s; kubectl: {node.state}/bin/kubectl", file=sys.stderr)
    print(f"export KUBECONFIG={node.kubeconfig}")


def _down(_: argparse.Namespace) -> None:
    _require_root()
    removed = Node().stop()
    print(f"removed {', '.join(removed)}" if removed else "there was nothing to remove")


def _status(_: argparse.Namespace) -> None:
    for component, runs in Node().status().items():
        print(f"{component:20} {'runs' if runs else 'does not run'}")


def _restart(arguments: argparse.Namespace) -> None:
    _require_root()
    Node().restart(arguments.component)


def _require_root() -> None:
    if os.geteuid():
        raise ClusterError("the node runs as root: run this as root")


def _build(arguments: argparse.Namespace) -> None:
    for name in arguments.names:
        if name not in BINARIES:
            raise ClusterError(f"{name} is no binary of the testbed: choose from {', '.join(BINARIES)}")
        print(built(BINARIES[name]))


_COMMANDS = {"up": _up, "down": _down, "status": _status, "restart": _restart, "build": _build}

if __name__ == "__main__":
    main()
