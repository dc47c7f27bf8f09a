"""Which API server, namespace and credentials a command uses: the rules of kubectl."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import shutil
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from sppo_operator import connection as module
from sppo_operator.api import Api
from sppo_operator.connection import connect, contexts
from sppo_operator.errors import KubeconfigError, MissingError
from sppo_operator.target import ClusterOptions, ClusterTarget, FolderTarget, target_of
from testbed.keys import make_certificates

PLUGIN = """
import json, os
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert (info["kind"], info["spec"]["interactive"]) == ("ExecCredential", False), info
token = os.environ["FLAVOUR"] + info["spec"]["cluster"]["server"]
status = {"token": token, "expirationTimestamp": os.environ.get("EXPIRES")}
print(json.dumps({**info, "status": status}))
"""


def config(name: str, *, user: Any = None, cluster: Any = None, **context: str) -> dict[str, Any]:
    """A kubeconfig whose only context, cluster and user have one name."""
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}:6443/"} | (cluster or {})}],
        "users": [{"name": name, "user": {"token": f"token of {name}"} if user is None else user}],
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", tmp_path / "account")
    return tmp_path


def write(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_an_option_comes_before_the_environment_before_the_home_folder_before_the_pod(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"token": "pods\n", "namespace": "pods", "ca.crt": "CA"}.items():
        write(home / "account" / name, text)
    servers = [connect().server]
    write(home / ".kube/config", config("home"))
    servers.append(connect().server)
    monkeypatch.setenv("KUBECONFIG", f"{home}/missing:{write(home / 'env', config('env'))}")
    servers.append(connect().server)
    servers.append(connect(kubeconfig=write(home / "named", config("named"))).server)
    assert servers == [
        "https://kubernetes.default.svc",
        "https://home:6443",
        "https://env:6443",
        "https://named:6443",
    ]


def test_files_are_merged_and_the_first_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(home / "a/one", config("one", user={"token": "of a"}, namespace="lab"))
    second = write(home / "b/two", config("two"))
    third = write(home / "c/three", config("one", user={"token": "of c"}))
    monkeypatch.setenv("KUBECONFIG", f"{first}::{second}:{third}")
    assert (connect().token, connect().namespace) == ("of a", "lab")
    assert connect(context="two").namespace == "default"
    assert connect(context="two", namespace="mine").namespace == "mine"
    assert contexts() == ["one", "two"]


def test_credentials_are_read_from_files_beside_the_kubeconfig(home: Path) -> None:
    write(home / "conf/token", "from a file\n")
    write(home / "conf/ca.pem", "CA")
    user, cluster = {"tokenFile": "token"}, {"certificate-authority": "ca.pem", "proxy-url": "http://proxy:3128"}
    found = connect(kubeconfig=write(home / "conf/config", config("c", user=user, cluster=cluster)))
    assert (found.ca, found.headers()) == ("CA", {"Authorization": "Bearer from a file"})
    assert found.proxy_url == "http://proxy:3128"
    both = user | {"token": "beside it"}
    assert connect(kubeconfig=write(home / "conf/both", config("c", user=both))).token == "from a file"
    gone = {"tokenFile": "gone", "token": "beside it"}
    assert connect(kubeconfig=write(home / "conf/left", config("c", user=gone))).token == "beside it"
    basic = connect(kubeconfig=write(home / "basic", config("b", user={"username": "me", "password": "pass"})))
    assert base64.b64decode(basic.headers()["Authorization"].removeprefix("Basic ")) == b"me:pass"
    data = {"client-certificate-data": base64.b64encode(b"PEM").decode()}
    assert connect(kubeconfig=write(home / "data", config("d", user=data))).certificate == "PEM"


@pytest.mark.parametrize(
    ("env", "expires"),
    [({}, math.inf), ({"EXPIRES": "2026-01-31T12:00:00Z"}, 1769860800.0)],
    ids=["until they are refused", "until a time"],
)
def test_a_program_gives_the_credentials(env: dict[str, str], expires: float, home: Path) -> None:
    given = [{"name": name, "value": value} for name, value in {"FLAVOUR": "sweet ", **env}.items()]
    script = write(home / "plugin.py", PLUGIN)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(script)],
            "env": given,
            "interactiveMode": "Never",
            "provideClusterInfo": True,
        }
    }
    found = connect(kubeconfig=write(home / "config", config("cloud", user=user)))
    assert (found.token, found.expires) == ("sweet https://cloud:6443/", expires)


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
UNSOUND: dict[str, tuple[Any, str]] = {
    "not YAML": ("{", "the kubeconfig cannot be used"),
    "a list": ("[]\n- 1", "the kubeconfig cannot be used"),
    "a text": ("hello", "holds no mapping"),
    "no context": ({}, "has no current-context: choose one with --context"),
    "unknown context": ({**config("a"), "current-context": "b"}, 'has no context "b" (known are a): choose another'),
    "no cluster": ({**config("a"), "clusters": []}, 'has no cluster "a" (context a needs it)'),
    "no server": (config("a", cluster={"server": ""}), "cluster a has no server"),
    "no user": ({**config("a"), "users": None}, 'has no user "a"'),
    "names of nobody": ({**config("a"), "users": [{"user": {}}]}, "must be a list of items with name and user"),
    "clusters as text": ({**config("a"), "clusters": "foo"}, "/config must be a list of items with name and cluster"),
    "a cluster as text": ({**config("a"), "clusters": [{"name": "a", "cluster": "b"}]}, "(clusters in "),
    "server with a space": (
        config("a", cluster={"server": "http://exa mple:99999/"}),
        'clusters[].cluster.server of a is "http://exa mple:99999/", no URL such as https://host:6443',
    ),
    "port too high": (config("a", cluster={"server": "https://host:65536"}), 'server of a is "https://host:65536", no'),
    "server of another kind": (config("a", cluster={"server": "ftp://host"}), 'server of a is "ftp://host", no URL'),
    "no base64": (config("a", user={"client-key-data": "%"}), "the kubeconfig cannot be used"),
    "missing file": (config("a", user={"tokenFile": "gone"}), "No such file"),
    "impersonation": (config("a", user={"as": "root"}), 'user "a" has as, which sppo does not support'),
    "server name": (config("a", cluster={"tls-server-name": "b"}), 'cluster "a" has tls-server-name, which'),
    "no program": (
        config("a", user={"exec": {**EXEC, "command": "gone-plugin", "installHint": "get it"}}),
        "program gone-plugin was not found: get it",
    ),
    "program fails": (config("a", user={"exec": {**EXEC, "command": "false"}}), "program false gave no credentials"),
    "program is silent": (config("a", user={"exec": {**EXEC, "command": "true"}}), "program true gave no credentials"),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_a_kubeconfig_that_is_not_sound_is_the_users_fault(case: str, home: Path) -> None:
    text, says = UNSOUND[case]
    with pytest.raises(KubeconfigError) as caught:
        connect(kubeconfig=write(home / "config", text if isinstance(text, str) else json.dumps(text)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("named", ["", "missing"])
def test_no_cluster_at_all_is_told(named: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", named and str(home / named))
    with pytest.raises(KubeconfigError, match="KUBECONFIG"):
        connect()


@pytest.mark.parametrize(("ca", "key"), [("no certificate", ""), ("", "no key")], ids=["CA", "certificate"])
def test_certificates_that_are_not_sound_are_told(ca: str, key: str, home: Path) -> None:
    found = connect(kubeconfig=write(home / "config", config("a")))
    with pytest.raises(KubeconfigError, match="its certificates"):
        module.replace(found, ca=ca, certificate=key).tls()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")
def test_a_client_certificate_is_shown_to_the_server(home: Path) -> None:
    make_certificates(home)
    authority, certificate, key = (home / name for name in ("ca.crt", "api.crt", "api.key"))
    data = {
        "client-certificate-data": base64.b64encode(certificate.read_bytes()).decode(),
        "client-key": key.name,
    }

    async def who(request: web.Request) -> web.Response:
        assert request.transport is not None
        subject = request.transport.get_extra_info("peercert")["subject"]
        return web.json_response({"subject": subject[0][0][1]})

    async def scenario() -> Any:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
        tls.load_cert_chain(certificate, key)
        tls.verify_mode = ssl.CERT_REQUIRED
        app = web.Application()
        app.router.add_get("/api/v1/pods", who)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        server = {"server": f"https://127.0.0.1:{runner.addresses[0][1]}", "certificate-authority": authority.name}
        kubeconfig = write(home / "config", config("c", user=data, cluster=server))
        try:
            async with Api(lambda: connect(kubeconfig=kubeconfig)) as api:
                return await api.get("/api/v1/pods")
        finally:
            await runner.cleanup()

    assert asyncio.run(scenario()) == {"subject": "kube-apiserver"}


@pytest.mark.parametrize("text", [".demo", "a/b", "./demo", "demo"])
def test_a_folder_with_a_run_is_a_target(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / text).mkdir(parents=True)
    (tmp_path / text / "run.yaml").touch()
    assert target_of(text, ClusterOptions()) == FolderTarget(folder=tmp_path / text)


def test_anything_else_is_the_name_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert target_of("demo", ClusterOptions()) == ClusterTarget(name="demo", options=ClusterOptions())
    (tmp_path / "demo/run.yaml").touch()
    named = ClusterOptions(namespace="lab")
    assert target_of("demo", named) == ClusterTarget(name="demo", options=named)
    assert named.flags() == " -n lab"
    assert ClusterOptions(context="my cluster").flags() == " --context 'my cluster'"
    for text in (".", ".demo", "Demo", "demo_1", "-"):
        with pytest.raises(MissingError, match="is no name of a run"):
            target_of(text, ClusterOptions())
    monkeypatch.chdir(tmp_path / "demo")
    with pytest.raises(MissingError, match=r'^"" is no name of a run'):
        target_of("", ClusterOptions())
