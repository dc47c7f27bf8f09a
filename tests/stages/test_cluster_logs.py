"""`sppo logs` about a run on a cluster, as a process that asks a simulated one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from served_run import Done, ServedCluster, ask, end_of, failed, with_cluster
from simulated_operator import FAILS, USER_FAULT, SimulatedOperator


def test_the_log_of_what_failed_is_shown(tmp_path: Path) -> None:
    progress = (
        '{"progress": {"done": 3, "total": 4, "unit": "chunks", "secondsLeft": 100, "figures": {"loss": 0.123456}}}'
    )
    log = f"\x1b[2Jloading\n{progress}\nKeyError: 'text'\n"
    done = ask(tmp_path, failed(USER_FAULT), "logs", "demo", i1_score_a1=log)
    assert (done.code, done.out) == (0, "�[2Jloading\n3/4 chunks, 2m left, loss 0.123\nKeyError: 'text'\n")
    assert done.err.startswith("==> score 1, attempt 1: pod demo-i1-score-a1-0-")
    assert done.err.endswith(" (worker 0, Failed)\n")
    raw = ask(tmp_path, failed(USER_FAULT), "logs", "demo", "--raw", i1_score_a1=log)
    assert raw.out == log


def test_of_several_workers_the_one_that_explains_the_end_is_shown(tmp_path: Path) -> None:
    operator = SimulatedOperator(iterations=1, retries={"limit": 0}, stages={"score": {"workers": 3}})
    operator.cluster.script["score 1"] = [FAILS, USER_FAULT]
    operator.settle()
    done = ask(tmp_path, operator, "logs", "demo")
    assert "(worker 1, Failed)" in done.err.splitlines()[0]
    assert "also there: pod demo-i1-score-a1-0-" in done.err
    other = ask(tmp_path, operator, "logs", "demo", "--worker", "0")
    assert "(worker 0, " in other.err
    assert ask(tmp_path, operator, "logs", "demo", "--worker", "9").code == 66


def test_attempts_are_chosen(tmp_path: Path) -> None:
    operator = failed(FAILS, FAILS)
    operator.edit(metadata={"annotations": {"sppo.dev/retry": "1"}})
    operator.finish()
    logs = {"i1_score_a1": "first\n", "i1_score_a2": "second\n"}
    stage = ("logs", "demo", "--stage", "score")
    assert ask(tmp_path, operator, *stage, **logs).out == "second\n"
    for choice in (("--previous",), ("--attempt", "1")):
        assert ask(tmp_path, operator, *stage, *choice, **logs).out == "first\n"
    refused = ask(tmp_path, operator, *stage, "--attempt", "3")
    assert (refused.code, refused.err) == (66, "error: score 1 has no attempt 3: its newest is 2\n")
    assert "started are prepare, evaluate 0" in ask(tmp_path, operator, "logs", "demo", "--iteration", "7").err


def test_a_log_is_followed_through_a_cut_and_into_the_pod_that_comes_next(tmp_path: Path) -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.cluster.logs["demo-i1-score-a1"] = "one\ntwo\nthree\n"
    operator.steps(lambda: operator.at_work("score"))

    async def scenario(cluster: ServedCluster) -> Done:
        cluster.show(operator)
        process = await cluster.start("logs", "demo", "-f")
        assert process.stdout
        shown = [await process.stdout.readline() for _ in range(3)]  # and its end, as of a proxy that cuts it
        (pod,) = [pod for pod in cluster.server.all("pods") if pod["metadata"]["name"].startswith("demo-i1-score")]
        name = pod["metadata"]["name"]
        cluster.server.logs[name] += "four\nfive\n"
        shown += [await process.stdout.readline() for _ in range(2)]
        cluster.server.change(pod, "status", phase="Failed")
        cluster.server.now += timedelta(minutes=10)
        cluster.server.logs["again"] = "from its start\n"
        later = {**pod["metadata"], "name": "again"}
        cluster.server.add("pods", {**pod, "metadata": later})
        shown.append(await process.stdout.readline())
        process.terminate()
        done = await end_of(process)
        return done._replace(out=b"".join(shown).decode() + done.out)

    done: Done = with_cluster(tmp_path, scenario)
    assert done.out == "one\ntwo\nthree\nfour\nfive\nfrom its start\n"
    pods = [line.partition(": pod ")[2].split()[0] for line in done.err.splitlines()]
    assert (len(pods), pods[-1]) == (2, "again")


def test_logs_are_followed_from_stage_to_stage(tmp_path: Path) -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.cluster.logs |= {"demo-i1-score-a1": "scoring\n", "demo-i1-train-a1": "training\n"}
    operator.steps(lambda: operator.at_work("score"))

    async def scenario(cluster: ServedCluster) -> Done:
        cluster.show(operator)
        process = await cluster.start("logs", "demo", "-f")
        assert process.stdout
        assert await process.stdout.readline() == b"scoring\n"
        operator.steps(lambda: operator.at_work("train"))
        cluster.show(operator)
        assert await process.stdout.readline() == b"training\n"
        operator.finish()
        cluster.show(operator)
        return await end_of(process)

    done: Done = with_cluster(tmp_path, scenario)
    assert (done.code, done.out) == (0, "")
    shown = [line.partition(": ")[0] for line in done.err.splitlines() if line.startswith("==>")]
    assert shown == [f"==> {step}, attempt 1" for step in ("score 1", "train 1", "evaluate 1")]
