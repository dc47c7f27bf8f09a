"""What a command is about: a run on a cluster, or the folder of a run on this machine."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sppo_operator.connection import PLUGIN_SECONDS, Connection, connect
from sppo_operator.errors import MissingError

RUN_FILE = "run.yaml"
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """The options of kubectl that say which cluster and namespace; empty ones are read from the kubeconfig."""

    namespace: str = ""
    context: str = ""
    kubeconfig: Path | None = None
    plugin_seconds: float = PLUGIN_SECONDS
    """How long a program that the kubeconfig names may take to give credentials."""

    def login(self) -> Connection:
        """Its `namespace` is the one to look in. Raises KubeconfigError."""
        return connect(
            kubeconfig=self.kubeconfig,
            context=self.context,
            namespace=self.namespace,
            plugin_seconds=self.plugin_seconds,
        )

    def given(self) -> bool:
        return bool(self.namespace or self.context or self.kubeconfig)

    def flags(self) -> str:
        """What a command of kubectl needs to look at the same place, with a blank before it."""
        named = {"-n": self.namespace, "--context": self.context, "--kubeconfig": self.kubeconfig}
        return "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in named.items() if value)


@dataclass(frozen=True, kw_only=True)
class FolderTarget:
    """The --workspace of `sppo run`."""

    folder: Path


@dataclass(frozen=True, kw_only=True)
class ClusterTarget:
    name: str
    options: ClusterOptions


Target = FolderTarget | ClusterTarget


def target_of(text: str, options: ClusterOptions) -> Target:
    """A folder if it has a run.yaml or a `/` in its name, unless the options name a cluster. Raises MissingError."""
    folder = Path(text)
    is_folder = os.sep in text or (bool(text) and (folder / RUN_FILE).exists())
    if is_folder and not options.given():
        return FolderTarget(folder=folder.absolute())
    if not NAME.fullmatch(text):
        raise MissingError(f'"{text}" is no name of a run and holds no {RUN_FILE}: name a run, or the folder of one')
    return ClusterTarget(name=text, options=options)
