"""What the operator is told at its start: flags, and the environment for what a Deployment sets."""

from __future__ import annotations

import argparse
import re
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sppo_operator.errors import UserError

LOG_LEVELS = ("debug", "info", "warning", "error")
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of the operator's settings; `parse` is the only place that reads flags and environment."""

    image: str
    """The trainer image of runs that name none."""
    lease_namespace: str
    identity: str
    """Who holds the lease, and who posts Events: no two processes may share it."""
    lease_name: str = "sppo-operator"
    namespaces: tuple[str, ...] = ()
    """The namespaces whose runs are carried out; empty for all."""
    workers: int = 4
    """How many runs are looked at at once."""
    lease_seconds: int = 15
    """How long after its last sign of life a leader is followed by another one."""
    renew_seconds: int = 10
    """How long a leader may fail to renew the lease before it stops."""
    retry_seconds: int = 2
    relist_seconds: int = 60
    """How often all objects are listed, to find what a watch missed."""
    logs_per_second: int = 10
    """How many pods' logs are read for progress, each every 15 s at most; 0 does without the right to pods/log."""
    http_port: int = 8080
    log_level: str = "info"
    log_format: str = "plain"

    @classmethod
    def parse(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
        """Raises UserError."""
        options = vars(_parser(environment).parse_args(arguments))
        chosen = options.pop("namespaces") or _split(environment.get("SPPO_WATCH_NAMESPACE", ""))
        settings = cls(namespaces=tuple(dict.fromkeys(chosen)), **options)
        settings._check()
        return settings

    def _check(self) -> None:
        if not self.image:
            raise UserError(
                "no trainer image is set: give --image or SPPO_TRAINER_IMAGE the image that runs the stages"
            )
        if not self.lease_namespace:
            raise UserError("no namespace for the lease is set: give --lease-namespace or POD_NAMESPACE one")
        for namespace in self.namespaces:
            if not NAMESPACE.fullmatch(namespace):
                raise UserError(f"--namespace {namespace!r} is no name of a namespace: repeat the flag for several")
        if not self.lease_seconds > self.renew_seconds > self.retry_seconds:
            raise UserError(
                f"--lease-seconds {self.lease_seconds}, --renew-seconds {self.renew_seconds} and --retry-seconds "
                f"{self.retry_seconds} leave a leader no time to stop: each must be larger than the next"
            )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see {self.prog} --help")


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sppo_operator.main", description="Carries out SPPORuns.", allow_abbrev=False)

    def add(flag: str, default: object, text: str, **options: object) -> None:
        parser.add_argument(f"--{flag}", default=default, help=f"{text} (default: %(default)s)", **options)  # type: ignore[arg-type] # the options of one of its overloads

    whole = _whole_number
    image, namespace = environment.get("SPPO_TRAINER_IMAGE", ""), environment.get("POD_NAMESPACE", "")
    identity = environment.get("POD_NAME") or f"{socket.gethostname()}_{uuid.uuid4()}"
    add("image", image, "trainer image of runs that name none, or SPPO_TRAINER_IMAGE")
    parser.add_argument(
        "--namespace",
        dest="namespaces",
        metavar="NAMESPACE",
        action="append",
        default=[],
        help="namespace to serve, or SPPO_WATCH_NAMESPACE; repeat it for several, leave it out for all",
    )
    add("workers", 4, "runs looked at at once", type=whole(1, 64))
    add("lease-namespace", namespace, "namespace of the lease, or POD_NAMESPACE")
    add("lease-name", "sppo-operator", "name of the lease")
    add("identity", identity, "name of this process in the lease, or POD_NAME")
    add("lease-seconds", 15, "silence after which another process takes over", type=whole(3, 3600))
    add("renew-seconds", 10, "how long a leader may fail to renew the lease", type=whole(2, 3600))
    add("retry-seconds", 2, "time between two looks at the lease", type=whole(1, 3600))
    add("relist-seconds", 60, "time between two looks for what a watch missed", type=whole(1, 3600))
    add("logs-per-second", 10, "pods' logs read for progress; 0 for none", type=whole(0, 1000))
    add("http-port", 8080, "port of /healthz, /readyz and /metrics", type=whole(0, 65535))
    add("log-level", "info", "least important line to log", choices=LOG_LEVELS)
    add("log-format", "plain", "one line of text, or one JSON object", choices=("plain", "json"))
    return parser


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return parse


def _split(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]
