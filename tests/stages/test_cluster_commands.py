"""The commands about a run on a cluster, as processes that ask a simulated one: real sockets, real exit codes."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from api_server import Answer
from served_run import Done, ServedCluster, ask, end_of, ended, failed, with_cluster
from simulated_operator import FAILS, USER_FAULT, SimulatedOperator, held_at

FORBIDDEN = 'spporuns.sppo.dev "demo" is forbidden: User "me" cannot get resource "spporuns" in the namespace "lab"'


def test_a_run_that_succeeded_is_told_of(tmp_path: Path) -> None:
    done = ask(tmp_path, ended(), "watch", "demo")
    assert done.code == 0
    assert done.out.startswith("lab/demo: Succeeded, iteration 1/1, win rate 0.60 [0.50, 0.70]\n")
    assert "Model of iteration 1: pvc://models/lab/demo/i1/train/model\nReport: sppo report demo\n" in done.out


def test_a_run_is_watched_to_its_end(tmp_path: Path) -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.steps(lambda: operator.at_work("generate"))

    async def scenario(cluster: ServedCluster) -> Done:
        cluster.show(operator)
        process = await cluster.start("watch", "demo", "-n", "lab")
        assert process.stdout
        first = await process.stdout.readline()
        operator.steps(lambda: operator.at_work("train"))
        cluster.show(operator)
        while b"train 1: started" not in first:
            first += await process.stdout.readline()
        operator.finish()
        cluster.show(operator)
        done = await end_of(process)
        return done._replace(out=first.decode() + done.out)

    done: Done = with_cluster(tmp_path, scenario)
    assert done.code == 0
    lines = [line.partition(" ")[2] for line in done.out.splitlines()]
    told = ["generate 1: done in", "score 1: started", "score 1: done in", "train 1: started", "train 1: done in"]
    positions = [next(n for n, line in enumerate(lines) if line.startswith(text)) for text in told]
    assert positions == sorted(positions)
    assert done.out.count("train 1: started") == 1


@pytest.mark.parametrize(
    ("behaviour", "code"), [([USER_FAULT], 65), ([FAILS, FAILS], 1)], ids=["user's fault", "retries exhausted"]
)
def test_the_exit_status_is_that_of_sppo_run(behaviour: list[Any], code: int, tmp_path: Path) -> None:
    done = ask(tmp_path, failed(*behaviour), "watch", "demo")
    assert done.code == code
    assert done.err.startswith("error: score 1")
    assert done.err.endswith("See: sppo describe demo\n")


def test_a_run_that_is_deleted_while_it_is_watched_is_told(tmp_path: Path) -> None:
    async def scenario(cluster: ServedCluster) -> Done:
        cluster.show(held_at("train"))
        process = await cluster.start("watch", "demo")
        assert process.stdout
        await process.stdout.readline()
        (run,) = cluster.server.all("spporuns")
        cluster.server.remove(cluster.server.at(run))
        return await end_of(process)

    done: Done = with_cluster(tmp_path, scenario)
    assert (done.code, done.err.count("\n")) == (66, 1)
    assert 'there is no run "demo" in namespace "lab"' in done.err


def test_an_api_server_that_is_away_for_a_while_ends_no_watch(tmp_path: Path) -> None:
    operator = held_at("train")

    async def scenario(cluster: ServedCluster) -> Done:
        cluster.show(operator)
        process = await cluster.start("watch", "demo")
        assert process.stdout
        await process.stdout.readline()
        cluster.server.answers.extend([Answer(503, {"message": "starting"}), Answer(500, {"message": "etcd"})])
        while cluster.server.answers:
            await asyncio.sleep(0.05)
        cluster.show(failed(USER_FAULT))
        (run,) = cluster.server.all("spporuns")
        cluster.server.change(run, metadata={"uid": operator.run["metadata"]["uid"]})
        return await end_of(process)

    done: Done = with_cluster(tmp_path, scenario)
    assert done.code == 65
    assert done.out.count("trying again") == 2


def test_ctrl_c_ends_a_watch(tmp_path: Path) -> None:
    async def scenario(cluster: ServedCluster) -> Done:
        cluster.show(held_at("train"))
        process = await cluster.start("watch")
        assert process.stdout
        assert await process.stdout.readline() == b"lab/demo: Training, 1/1, train 1, 0.50 [0.40, 0.60]\n"
        process.send_signal(signal.SIGINT)
        return await end_of(process)

    done: Done = with_cluster(tmp_path, scenario)
    assert (done.code, done.err) == (130, "")


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (Answer(404, {"message": 'spporuns.sppo.dev "demo" not found'}), 66, 'there is no run "demo" in namespace "lab"'),
        (Answer(404, {"message": "the server could not find the requested resource"}), 69, "install the operator"),
        (Answer(403, {"message": FORBIDDEN}), 77, "cannot get resource"),
        (Answer(401, {"message": "Unauthorized"}), 77, "log in to the cluster again"),
        (Answer(500, {"message": "etcd is away"}), 69, "answers 500 (etcd is away): try again later"),
        (Answer(200, ["hello"]), 69, """error: the API server answered with something else than an object: b'["hello"]': check"""),
        (Answer(0), 69, "check the cluster, or choose another --context"),
    ],
    ids=["no run", "no CRD", "no right", "no login", "a fault", "another server", "no answer"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["watch", "logs", "describe"])
def test_what_the_api_server_refuses_is_one_sentence(
    command: str, answer: Answer, code: int, says: str, tmp_path: Path
) -> None:
    async def scenario(cluster: ServedCluster) -> Done:
        cluster.server.answers.extend([answer] * 2)  # the client sends a request again whose connection was cut
        return await cluster.run(command, "demo")

    done: Done = with_cluster(tmp_path, scenario)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert says in done.err


def test_pods_that_are_gone_leave_what_the_status_kept(tmp_path: Path) -> None:
    operator = failed(USER_FAULT)
    for pod in operator.cluster.all("pods"):
        operator.cluster.remove(operator.cluster.at(pod))
    for command in ("logs", "describe"):
        done = ask(tmp_path, operator, command, "demo")
        told = " ".join((done.err + done.out).split())
        assert "no pod of Job demo-i1-score-a1 is left: finished Jobs are removed after 86400 s" in told
        assert "the status kept of it: prompts.source lacks a column: name it" in told


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["INT", "TERM", "HUP"],
)
def test_a_report_that_is_stopped_leaves_no_pod_and_no_file(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    async def scenario(cluster: ServedCluster) -> Done:
        cluster.show(ended())
        cluster.server.admission = lambda pod: pod.update(status={"phase": "Pending"})
        before = cluster.server.all("pods")
        process = await cluster.start("report", "demo")
        assert process.stderr
        assert (await process.stderr.readline()).startswith(b"Reading curves and answers from the run's claim")
        while len(cluster.server.all("pods")) == len(before):
            await asyncio.sleep(0.01)
        process.send_signal(number)
        done = await end_of(process)
        left = [pod for pod in cluster.server.all("pods") if "deletionTimestamp" not in pod["metadata"]]
        assert len(left) == len(before)
        return done

    done: Done = with_cluster(tmp_path, scenario)
    assert (done.code, done.out) == (status, "")
    assert [path.name for path in tmp_path.iterdir()] == ["kubeconfig"]


def test_a_failed_run_is_described(tmp_path: Path) -> None:
    done = ask(tmp_path, failed(USER_FAULT), "describe", "demo", "-n", "lab", i1_score_a1="one\ntwo\n")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "lab/demo failed in score 1, attempt 1, exit code 65."
    assert lines[2].strip() == "prompts.source lacks a column: name it"
    assert '  $ kubectl annotate --overwrite sppo demo -n lab sppo.dev/retry="$(date +%s)"' in lines
    assert any(line.split()[:6] == ["✗", "score", "1", "1", "UserFault", "65"] for line in lines)
    assert any("StageFailed" in line for line in lines)
    assert [line.strip() for line in lines[-4:]] == ["one", "two", "", "All of it: sppo logs demo -n lab"]


@pytest.mark.parametrize("command", ["watch", "describe"])
def test_a_run_that_nobody_has_looked_at(command: str, tmp_path: Path) -> None:
    operator = SimulatedOperator(iterations=1)

    async def scenario(cluster: ServedCluster) -> bytes:
        cluster.show(operator)
        process = await cluster.start(command, "demo")
        assert process.stdout
        line = await process.stdout.readline()
        if command == "watch":
            process.terminate()
        await process.communicate()
        return line

    line: bytes = with_cluster(tmp_path, scenario)
    said = {"watch": b"lab/demo: New\n", "describe": b"No operator has looked at lab/demo in "}
    assert line.startswith(said[command])


def test_only_the_events_of_the_run_are_asked_for(tmp_path: Path) -> None:
    async def scenario(cluster: ServedCluster) -> None:
        cluster.show(failed(USER_FAULT))
        done = await cluster.run("describe", "demo")
        assert "StageFailed" in done.out
        (query,) = [request.query for request in cluster.server.requests if request.path.endswith("/events")]
        (run,) = cluster.server.all("spporuns")
        assert query["fieldSelector"] == f"involvedObject.uid={run['metadata']['uid']}"

    with_cluster(tmp_path, scenario)


def test_all_runs_of_all_namespaces_are_watched(tmp_path: Path) -> None:
    async def scenario(cluster: ServedCluster) -> list[bytes]:
        cluster.show(failed(USER_FAULT))
        (run,) = cluster.server.all("spporuns")
        cluster.server.add("spporuns", {**run, "metadata": {"name": "other", "namespace": "team"}})
        process = await cluster.start("watch", "-A")
        assert process.stdout
        lines = [await process.stdout.readline() for _ in range(2)]
        cluster.server.remove(cluster.server.at(run))
        lines.append(await process.stdout.readline())
        process.terminate()
        await process.communicate()
        return lines

    lines: list[bytes] = with_cluster(tmp_path, scenario)
    assert [line.split(b":")[0] for line in lines] == [b"lab/demo", b"team/other", b"lab/demo"]
    assert lines[2] == b"lab/demo: deleted\n"


def test_run_names_are_completed_and_an_api_server_that_is_away_is_silence(tmp_path: Path) -> None:
    async def scenario(cluster: ServedCluster) -> list[bytes]:
        cluster.show(ended())
        (tmp_path / "deck").mkdir()
        (tmp_path / "deck/run.yaml").touch()
        found = [await complete(cluster, "watch", "de"), await complete(cluster, "logs", "demo", "--stage", "t")]
        cluster.server.answers.append(Answer(500))
        return [*found, await complete(cluster, "describe", "dem")]

    lines: list[bytes] = with_cluster(tmp_path, scenario)
    assert lines == [b"deck/\ndemo\n:4\n", b"train\n:4\n", b":4\n"]


async def complete(cluster: ServedCluster, *words: str) -> bytes:
    code = "import sys; sys.argv[0] = 'kubectl_complete-sppo'; from sppo_operator.commands.cli import complete_for_kubectl as main; main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, *words),
        cwd=cluster.folder,
        env={"KUBECONFIG": str(cluster.kubeconfig), "PATH": ""},
        stdout=asyncio.subprocess.PIPE,
    )
    return (await process.communicate())[0]
