"""Completion of the command line: in bash, zsh and fish through argcomplete, and in kubectl's own.

kubectl asks a program kubectl_complete-sppo with the words so far, and reads candidates and cobra's directive.
https://github.com/spf13/cobra/blob/main/site/content/completions/_index.md
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import shlex
import urllib.parse
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from sppo_operator import resources
from sppo_operator.connection import PLUGIN_SECONDS, Connection, contexts
from sppo_operator.errors import UserError
from sppo_operator.target import RUN_FILE, ClusterOptions

PROGRAMS = ("sppo", "kubectl-sppo")
SECONDS = 1.5
"""Nobody waits longer for a list of names."""
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
NO_SPACE, NO_FILES = 2, 4
"""cobra's directives."""


def script(shell: str) -> str:
    """What a shell evaluates to complete `sppo`."""
    from argcomplete.shell_integration import shellcode

    return shellcode(PROGRAMS, shell=shell)


def answer(parser: argparse.ArgumentParser) -> None:
    """Print the candidates and exit, if a shell asks for them."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options="long")


def answer_kubectl(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Print the candidates for the last of the words."""
    found = candidates(parser, words or [""])
    for candidate in found:
        print(candidate)
    unfinished = len(found) == 1 and found[0].endswith("/")
    print(f":{NO_FILES + (NO_SPACE if unfinished else 0)}")


def candidates(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """How the last of the words may go on."""
    import argcomplete

    *before, last = words
    line = " ".join(["sppo", *map(shlex.quote, before), last])
    os.environ |= {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
    }
    out = io.StringIO()
    argcomplete.autocomplete(parser, always_complete_options=False, exit_method=lambda *_: None, output_stream=out)
    return [word for word in out.getvalue().split("\n") if word]


def targets(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    """Folders of runs, and the runs on the cluster."""
    if "/" in prefix or prefix.startswith("."):
        return folders(prefix)
    here = [path for path in folders(prefix) if Path(path, RUN_FILE).exists()]
    return [*here, *run_names(options_of(parsed_args, SECONDS))]


def run_names(options: ClusterOptions) -> list[str]:
    return _names(options, lambda connection: resources.runs(connection.namespace))


def namespaces(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return _names(options_of(parsed_args, SECONDS), lambda _: "/api/v1/namespaces")


def context_names(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    try:
        return contexts(options_of(parsed_args).kubeconfig)
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):  # completion is silent
        return []


def folders(prefix: str, **_: Any) -> list[str]:
    return [path for path in files(prefix) if path.endswith("/")]


def files(prefix: str, **_: Any) -> list[str]:
    """The entries of the folder that the prefix names, as the prefix writes it; hidden ones only if it asks."""
    folder, start = os.path.split(prefix)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    shown = [entry for entry in entries if entry.name.startswith(start) and (start or entry.name[0] != ".")]
    return [f"{prefix[: len(prefix) - len(start)]}{entry.name}{'/' if entry.is_dir() else ''}" for entry in shown]


def options_of(parsed: argparse.Namespace, plugin_seconds: float = PLUGIN_SECONDS) -> ClusterOptions:
    kubeconfig = getattr(parsed, "kubeconfig", None)
    return ClusterOptions(
        namespace=getattr(parsed, "namespace", "") or "",
        context=getattr(parsed, "context", "") or "",
        kubeconfig=Path(kubeconfig) if kubeconfig else None,
        plugin_seconds=plugin_seconds,
    )


def _names(options: ClusterOptions, path_of: Any) -> list[str]:
    """Names only, by one request without aiohttp, which takes longer to import than the answer takes."""
    try:
        connection = options.login()
        listed = _get(connection, path_of(connection))
        return [item["metadata"]["name"] for item in listed.get("items", ())]
    except (UserError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return []  # completion is silent


def _get(connection: Connection, path: str) -> Any:
    url = urllib.parse.urlsplit(connection.server)
    with closing(_client(connection, url.netloc)) as client:
        client.request("GET", f"{url.path}{path}?limit=500", headers={**connection.headers(), "Accept": NAMES_ONLY})
        return json.loads(client.getresponse().read())


def _client(connection: Connection, host: str) -> http.client.HTTPConnection:
    """Never past a proxy: raises ValueError for one that http.client cannot go through."""
    proxy = urllib.parse.urlsplit(connection.proxy_url or "")
    if proxy.netloc and (proxy.scheme != "http" or proxy.username):
        raise ValueError(f"a proxy of another kind: {proxy.scheme}")
    client: http.client.HTTPConnection
    if tls := connection.tls():
        client = http.client.HTTPSConnection(proxy.netloc or host, timeout=SECONDS, context=tls)
    else:
        client = http.client.HTTPConnection(proxy.netloc or host, timeout=SECONDS)
    if proxy.netloc:
        client.set_tunnel(host)
    return client
