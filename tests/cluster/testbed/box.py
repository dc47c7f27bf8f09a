"""The namespaces in which the node lives, and everything that this machine sees of it.

The node has process, mount and network namespaces of its own, held by one idle first process. The kernel ends every process
of a process namespace with its first one, and the last process takes mounts, links and packet filter rules with it. So the
tear-down is one signal, and it is complete whatever state the node was in.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from testbed import cgroups
from testbed.packages import SYSTEM_PATH
from testbed.shell import ClusterError, run, succeeds, wait_until

# 198.18.0.0/15 is set aside for tests of networks (RFC 2544), so that no office or provider network collides with it.
HOST_ADDRESS = "198.18.0.1"
NODE_ADDRESS = "198.18.0.2"
POD_RANGE = "198.18.64.0/18"
SERVICE_RANGE = "198.19.0.0/16"
_MARK = ".testbed"
_HOST_LINK, _NODE_LINK = "sppo-host", "sppo-node"

# Folders that are compiled into the components. The node sees folders of its own in these places.
_FOLDERS = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")
# The kubelet sets these for the whole machine, a panic after ten seconds among them. It finds them as it wants them instead.
_KERNEL_SETTINGS = {
    "/proc/sys/kernel/keys/root_maxbytes": "25000000",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000",
    "/proc/sys/kernel/panic": "10",
    "/proc/sys/kernel/panic_on_oops": "1",
    "/proc/sys/vm/overcommit_memory": "1",
    "/proc/sys/vm/panic_on_oom": "0",
}


class Box:
    """Namespaces, links and cgroups of one node; everything on disk is below `state`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._init = state / "bin" / "pause"
        self._env = {"PATH": SYSTEM_PATH, "HOME": str(state)}

    # -- the namespaces ------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The first process; it is known by the path of its program, which a file with a number could not promise."""
        for entry in Path("/proc").glob("[0-9]*"):
            if _program(entry) == str(self._init):
                return int(entry.name)
        return None

    def claim(self) -> None:
        """Makes the state folder and marks it, since `stop` removes it whole, whatever path the user named."""
        self.state.mkdir(parents=True, exist_ok=True)
        self._require_own()
        (self.state / _MARK).touch()

    def start(self) -> None:
        """`<state>/bin/pause` must exist; raises ClusterError where namespaces are not allowed."""
        if _linked():
            raise ClusterError(f"another node runs on this machine (it has the link {_HOST_LINK}): stop it first")
        # --kill-child: the first process does not outlive unshare, which waits for it. The shell ends at once.
        namespaces = "--fork --kill-child --pid --mount-proc --mount --propagation slave --ipc --net"
        log = self._folder("logs") / "namespaces.log"
        script = f'log=$1; shift; setsid unshare {namespaces} "$@" </dev/null >>"$log" 2>&1 &'
        run("sh", "-c", script, "sh", log, self._init, env=self._env)
        wait_until(
            lambda: self.pid is not None,
            seconds=10,
            failure=lambda: f"namespaces are not allowed here: {self.log_tail('namespaces')}",
        )
        self._hide_host()
        self._connect()

    def _hide_host(self) -> None:
        absent = [folder for folder in _FOLDERS if not Path(folder).exists()]
        (self.state / "created.json").write_text(json.dumps(absent))  # before they are: a kill may come in between
        for folder in _FOLDERS:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.run("mount", "--bind", self._folder("host" + folder), folder)
        for setting, value in _KERNEL_SETTINGS.items():
            stand_in = self._folder("host/settings") / Path(setting).name
            stand_in.write_text(value + "\n")
            self.run("mount", "--bind", stand_in, setting)

    def _connect(self) -> None:
        """One link to this machine. Pods and services are reached from here through it; nothing is let out further."""
        run("ip", "link", "add", _HOST_LINK, "type", "veth", "peer", "name", _NODE_LINK, "netns", str(self.pid))
        run("ip", "address", "add", f"{HOST_ADDRESS}/24", "dev", _HOST_LINK)
        run("ip", "link", "set", _HOST_LINK, "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", _NODE_LINK)
        self.run("ip", "link", "set", _NODE_LINK, "up")
        for network in (POD_RANGE, SERVICE_RANGE):
            run("ip", "route", "add", network, "via", NODE_ADDRESS)
        # kube-proxy rewrites a service's address on its way out, so it needs a way out; other addresses fail at once.
        self.run("ip", "route", "add", SERVICE_RANGE, "via", HOST_ADDRESS)
        self.run("ip", "route", "add", "unreachable", "default")
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        # Without it a reply between two pods of the bridge bypasses kube-proxy's rules. The module may be built in.
        if not Path("/proc/sys/net/bridge").exists():
            run("modprobe", "br_netfilter")
        self.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")

    def stop(self) -> list[str]:
        """Ends and removes everything, also after a start that failed half-way; says what there was."""
        removed = []
        if self._kill():
            removed.append("processes, mounts and network")
        if cgroups.remove(self.state.name):
            removed.append("cgroups")
        if self.state.exists():
            removed += self._remove_files()
        return removed

    def _kill(self) -> bool:
        pid = self.pid
        if pid is None:
            return False
        _end(pid, lambda number: self.pid == number)
        wait_until(
            lambda: not _linked(),
            seconds=10,
            failure=lambda: f"the link {_HOST_LINK} outlives its namespace",
        )
        return True

    def _require_own(self) -> None:
        if any(self.state.iterdir()) and not (self.state / _MARK).exists():
            raise ClusterError(f"{self.state} holds other files: name an empty folder in SPPO_CLUSTER_STATE")

    def _remove_files(self) -> list[str]:
        self._require_own()
        # Volumes are bind mounts below the state folder, and removing through one would remove the user's data. They lie in
        # the namespace that ended; one that is seen here was mounted by somebody else.
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        if inside := [mount for mount in mounts if Path(mount).is_relative_to(self.state)]:
            raise ClusterError(f"{inside[0]} is mounted below the state folder: unmount it, nothing was removed")
        created = self.state / "created.json"
        for folder in json.loads(created.read_text()) if created.exists() else []:
            with contextlib.suppress(OSError):  # somebody else uses it by now
                Path(folder).rmdir()
        shutil.rmtree(self.state)
        return [str(self.state)]

    # -- processes -----------------------------------------------------------------------------------------------------

    def run(self, *command: str | Path, stdin: str | None = None) -> str:
        """Standard output of a command inside; raises ClusterError if it fails."""
        return run(*self._enter(), *command, stdin=stdin, env=self._env)

    def spawn(self, name: str, *command: str | Path) -> None:
        """Starts a process inside that outlives this one; its log is `logs/<name>.log`."""
        # The shell ends at once, so the first process inside adopts the new one and no process is left outside.
        script = 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!'
        log = self.state / "logs" / f"{name}.log"
        number = int(self.run("sh", "-c", script, "sh", log, *command))
        process = self.inside("/proc") / str(number)
        wait_until(
            lambda: _program(process) not in ("sh", "setsid"),  # it runs the command, or has ended
            seconds=30,
            failure=lambda: f"{name} does not start",
        )
        self._pid_file(name).write_text(f"{number} {command[0]}")

    def alive(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            number, program = self._pid_file(name).read_text().split(" ", 1)
            return self.pid is not None and _program(self.inside("/proc") / number) == program
        return False

    def kill(self, name: str) -> None:
        """SIGKILL, and waits until the process is gone; nothing if it does not run."""
        if self.alive(name):
            number = self._pid_file(name).read_text().split()[0]
            self.run("kill", "-KILL", number)
            # Its first thread may end, and its command line with it, long before the last one lets go of files and ports.
            process = self.inside("/proc") / number
            wait_until(lambda: not process.exists(), seconds=30, failure=lambda: f"{name} does not end")

    def cgroup(self, name: str) -> str:
        """A new control group for a kubelet, which `stop` removes with all that is below."""
        return cgroups.create(self.state.name, name)

    def inside(self, path: str) -> Path:
        """A path as the node sees it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def log_tail(self, name: str) -> str:
        log = self.state / "logs" / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else "no log"

    def _enter(self) -> list[str]:
        if self.pid is None:
            raise ClusterError("the node does not run")
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--ipc", "--"]

    def _pid_file(self, name: str) -> Path:
        return self.state / "run" / f"{name}.pid"

    def _folder(self, name: str) -> Path:
        folder = self.state / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _end(pid: int, is_ours: Callable[[int], bool]) -> None:
    """SIGKILL, and waits for the end. A descriptor, unlike a number, never passes to another process."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if is_ours(pid):
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], 30)
    finally:
        os.close(process)


def _linked() -> bool:
    return succeeds("ip", "link", "show", _HOST_LINK)


def _program(process: Path) -> str:
    with contextlib.suppress(OSError):  # ended meanwhile
        return (process / "cmdline").read_bytes().split(b"\0")[0].decode()
    return ""
