"""Where the API server is and who we are: a kubeconfig, read as kubectl reads it, or else a pod's service account.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from sppo_operator.errors import KubeconfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOME_CONFIG = Path("~/.kube/config")
PLUGIN_SECONDS = 60.0
UNSUPPORTED = {
    "cluster": ("tls-server-name",),
    "user": ("auth-provider", "as", "as-uid", "as-groups", "as-user-extra"),
}
"""Fields that change who we are or whom we trust: leaving them out would be worse than to refuse them."""

Section = Mapping[str, Any]
NOT_USABLE = "the kubeconfig cannot be used ({why}): correct it, or name another one with --kubeconfig or KUBECONFIG"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """One API server, and credentials for it; certificates and keys are PEM texts."""

    server: str
    namespace: str = "default"
    """Where names are looked up that come without a namespace."""
    ca: str = ""
    insecure: bool = False
    certificate: str = ""
    key: str = ""
    token: str = ""
    username: str = ""
    password: str = ""
    proxy_url: str | None = None
    expires: float | None = None
    """Until when the credentials are good, in seconds since the epoch; None for those of files, which may change."""

    def headers(self) -> dict[str, str]:
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        if self.username:
            return {"Authorization": f"Basic {_encoded(f'{self.username}:{self.password}')}"}
        return {}

    def tls(self) -> ssl.SSLContext | None:
        """None for a server without TLS. Raises KubeconfigError."""
        if not self.server.startswith("https:"):
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca or None)
            if self.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if self.certificate:
                with tempfile.NamedTemporaryFile("w") as pem:  # the ssl module reads files only
                    pem.write(f"{self.certificate}\n{self.key}")
                    pem.flush()
                    context.load_cert_chain(pem.name)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise KubeconfigError(NOT_USABLE.format(why=f"its certificates: {error}")) from error
        return context


def connect(
    *, kubeconfig: Path | None = None, context: str = "", namespace: str = "", plugin_seconds: float = PLUGIN_SECONDS
) -> Connection:
    """Read it all anew: tokens expire. Raises KubeconfigError.

    As with kubectl, `kubeconfig` comes before KUBECONFIG, that before ~/.kube/config, and that before the pod's
    service account; `namespace` comes before that of the context.
    """
    files = _files(kubeconfig)
    if files:
        try:
            found = _from_files(files, context, plugin_seconds)
        except (OSError, yaml.YAMLError, UnicodeDecodeError, binascii.Error) as error:
            raise KubeconfigError(NOT_USABLE.format(why=" ".join(str(error).split()))) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise KubeconfigError(NOT_USABLE.format(why=f"{type(error).__name__}: {error}")) from error
    elif (SERVICE_ACCOUNT / "token").exists() and not context:
        found = _from_service_account()
    else:
        raise KubeconfigError("no cluster is configured: let --kubeconfig or KUBECONFIG name a file, or run in a pod")
    return replace(found, namespace=namespace or found.namespace)


def contexts(kubeconfig: Path | None = None) -> list[str]:
    """The names of the contexts. Raises KubeconfigError, OSError or YAMLError."""
    return sorted(_merged(_files(kubeconfig))["contexts"])


def _files(kubeconfig: Path | None) -> list[Path]:
    if kubeconfig is not None:
        return [kubeconfig]
    named = os.environ.get("KUBECONFIG", "")
    paths = [Path(path).expanduser() for path in named.split(os.pathsep) if path]
    if not paths:
        home = HOME_CONFIG.expanduser()
        return [home] if home.exists() else []
    if not (there := [path for path in paths if path.exists()]):
        raise KubeconfigError(NOT_USABLE.format(why=f"{named} is not there"))
    return there


def _merged(files: list[Path]) -> dict[str, Any]:
    """Sections by name, the first file that has one wins; paths in a file are relative to it."""
    merged: dict[str, Any] = {"current-context": "", "contexts": {}, "clusters": {}, "users": {}}
    for file in files:
        config = yaml.safe_load(file.read_text("utf-8")) or {}
        if not isinstance(config, dict):
            raise KubeconfigError(NOT_USABLE.format(why=f"{file} holds no mapping"))
        merged["current-context"] = merged["current-context"] or config.get("current-context") or ""
        for plural in ("contexts", "clusters", "users"):
            for item in _items(config, plural, file):
                section = (item.get(plural[:-1]) or {}) | {"folder": file.absolute().parent}
                merged[plural].setdefault(item["name"], section)
    return merged


def _items(config: Section, plural: str, file: Path) -> list[dict[str, Any]]:
    kind, items = plural[:-1], config.get(plural) or []
    whole = isinstance(items, list) and all(isinstance(item, dict) and item.get("name") for item in items)
    if not whole or not all(isinstance(item.get(kind) or {}, dict) for item in items):
        raise KubeconfigError(NOT_USABLE.format(why=f"{plural} in {file} must be a list of items with name and {kind}"))
    return list(items)


def _from_files(files: list[Path], wanted: str, plugin_seconds: float) -> Connection:
    config = _merged(files)
    name = wanted or config["current-context"]
    if not name:
        raise KubeconfigError("the kubeconfig has no current-context: choose one with --context")
    context = _section(config, "context", name, f"known are {', '.join(sorted(config['contexts'])) or 'none'}")
    cluster = _section(config, "cluster", context["cluster"], f"context {name} needs it")
    user = _section(config, "user", context.get("user", ""), f"context {name} needs it") if context.get("user") else {}
    if not cluster.get("server"):
        raise KubeconfigError(NOT_USABLE.format(why=f"cluster {context['cluster']} has no server"))
    connection = Connection(
        server=_url(str(cluster["server"]), context["cluster"]),
        namespace=context.get("namespace") or "default",
        ca=_pem(cluster, "certificate-authority"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        certificate=_pem(user, "client-certificate"),
        key=_pem(user, "client-key"),
        token=_token(user),
        username=user.get("username") or "",
        password=user.get("password") or "",
        proxy_url=cluster.get("proxy-url"),
    )
    return _with_plugin(connection, user, cluster, plugin_seconds) if user.get("exec") else connection


def _url(server: str, cluster: str) -> str:
    try:
        url = urllib.parse.urlsplit(server)
        whole = url.scheme in ("http", "https") and url.hostname and url.port != 0 and not re.search(r"\s", server)
    except ValueError:  # a port that is no number
        whole = False
    if not whole:
        why = f'clusters[].cluster.server of {cluster} is "{server}", no URL such as https://host:6443'
        raise KubeconfigError(NOT_USABLE.format(why=why))
    return server.rstrip("/")


def _section(config: Section, kind: str, name: str, more: str) -> Section:
    found: Section | None = config[f"{kind}s"].get(name)
    if found is None:
        raise KubeconfigError(f'the kubeconfig has no {kind} "{name}" ({more}): choose another with --context')
    for field in UNSUPPORTED.get(kind, ()):
        if field in found:
            raise KubeconfigError(
                f'the kubeconfig\'s {kind} "{name}" has {field}, which sppo does not support: choose another context'
            )
    return found


def _pem(section: Section, field: str) -> str:
    data = section.get(f"{field}-data")
    return base64.b64decode(data, validate=True).decode() if data else _file(section, field)


def _file(section: Section, field: str) -> str:
    path = section.get(field)
    return Path(section["folder"], path).read_text("utf-8") if path else ""


def _token(user: Section) -> str:
    """A file that can be read comes before the text beside it, as in client-go."""
    given = user.get("token") or ""
    try:
        return _file(user, "tokenFile").strip() or given
    except OSError:
        if not given:
            raise
        return given


def _with_plugin(connection: Connection, user: Section, cluster: Section, seconds: float) -> Connection:
    """The connection with the credentials of a program, such as those of the big clouds."""
    plugin = user["exec"]
    command = plugin["command"]
    program = str(Path(user["folder"], command)) if os.sep in command else command
    given = {item["name"]: item["value"] for item in plugin.get("env") or ()}
    try:
        done = subprocess.run(  # noqa: S603 - what the user's own kubeconfig names
            [program, *(plugin.get("args") or ())],
            env=os.environ | given | {"KUBERNETES_EXEC_INFO": _exec_info(plugin, cluster)},
            stdout=subprocess.PIPE,
            timeout=seconds,
            check=True,
        )
        status = json.loads(done.stdout)["status"]
        return replace(
            connection,
            token=status.get("token") or connection.token,
            certificate=status.get("clientCertificateData") or connection.certificate,
            key=status.get("clientKeyData") or connection.key,
            expires=_seconds(status.get("expirationTimestamp")),
        )
    except FileNotFoundError as error:
        hint = plugin.get("installHint", "").strip() or "install it"
        raise KubeconfigError(f"the kubeconfig's program {command} was not found: {hint}") from error
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KubeconfigError(
            f"the kubeconfig's program {command} gave no credentials ({error}): run it by hand, or log in again"
        ) from error


def _seconds(expiration: str | None) -> float:
    """A program that names no time is asked again when its credentials are refused."""
    return datetime.fromisoformat(expiration).timestamp() if expiration else math.inf


def _exec_info(plugin: Section, cluster: Section) -> str:
    interactive = sys.stdin is not None and sys.stdin.isatty() and plugin.get("interactiveMode") != "Never"
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        known = ("server", "certificate-authority-data", "insecure-skip-tls-verify", "proxy-url")
        spec["cluster"] = {field: cluster[field] for field in known if field in cluster}
    return json.dumps({"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec})


def _from_service_account() -> Connection:
    def read(name: str) -> str:
        return (SERVICE_ACCOUNT / name).read_text("utf-8").strip()

    try:
        return Connection(
            server="https://kubernetes.default.svc",
            namespace=read("namespace") or "default",
            ca=read("ca.crt"),
            token=read("token"),
        )
    except OSError as error:
        raise KubeconfigError(f"the pod's service account cannot be used ({error}): mount it whole") from error


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


Login = Callable[[], Connection]
