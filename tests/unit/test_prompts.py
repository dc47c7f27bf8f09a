"""Prompts: what is read, what is refused, and that blocks never shift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sppo_trainer.config import Prompts
from sppo_trainer.errors import UserError
from sppo_trainer.prompts import (
    block,
    read_prompts,
    sample_seed,
    shuffled,
    split,
    with_system_prompt,
    without_duplicates,
)

CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "写诗"},
]


def settings(**changes: Any) -> Prompts:
    fields: dict[str, Any] = {"source": "file", "per_iteration": 2, "held_out": 2}
    return Prompts(**(fields | changes))


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


ROWS = [{"prompt": "One?", "answer": 1}, {"prompt": CHAT, "answer": 2}]


def test_plain_and_chat_prompts_of_a_jsonl_file(tmp_path: Path) -> None:
    plain, chat = read_prompts(write_jsonl(tmp_path / "p.jsonl", ROWS), settings())
    assert plain.messages == ({"role": "user", "content": "One?"},)
    assert chat.messages == tuple(CHAT)
    assert (plain.columns, chat.where) == ({"answer": 1}, "p.jsonl line 2")


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_every_form_gives_the_same_prompts(tmp_path: Path, form: str) -> None:
    rows = [{"prompt": f"Question {n}, really?", "answer": n} for n in range(3)]
    path = tmp_path / f"p.{form}"
    match form:
        case "jsonl":
            write_jsonl(path, rows)
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case "csv":
            pa_csv.write_csv(pa.Table.from_pylist(rows), path)
    read = read_prompts(path, settings())
    assert [prompt.messages[0]["content"] for prompt in read] == [row["prompt"] for row in rows]
    assert [int(prompt.columns["answer"]) for prompt in read] == [0, 1, 2]


def test_a_dataset_folder_gives_the_files_of_the_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, text in (("train-00000-of-00002", "a"), ("train-00001-of-00002", "b"), ("test-00000-of-00001", "c")):
        pq.write_table(pa.Table.from_pylist([{"prompt": text}]), tmp_path / f"data/{name}.parquet")
    assert [prompt.messages[0]["content"] for prompt in read_prompts(tmp_path, settings())] == ["a", "b"]
    assert len(read_prompts(tmp_path, settings(split="test"))) == 1
    with pytest.raises(UserError, match=r"no file of split 'dev': check prompts.split"):
        read_prompts(tmp_path, settings(split="dev"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows: give a file"),
        ("\n\n", "has no rows"),
        ('{"prompt": "a"}\n{"prompt": \n', r"p.jsonl line 2 is not JSON"),
        ('{"prompt": "a"}\n["b"]\n', r"line 2 holds a list: write one JSON object per line"),
        (
            '{"prompt": "a"}\n\n{"question": "b"}\n',
            r"line 3 has no column 'prompt' but 'question': check prompts.column",
        ),
        ('{"prompt": ""}\n', r"line 1: column 'prompt' holds \"\""),
        ('{"prompt": 7}\n', r"line 1: column 'prompt' holds 7"),
        ('{"prompt": [{"role": "assistant", "content": "x"}]}\n', "ends with the user's"),
        ('{"prompt": [{"role": "user"}]}\n', "list of chat messages"),
        (b'{"prompt": "\xff"}\n', r"line 1 is not JSON"),
    ],
    ids=[
        "empty",
        "blank",
        "bad line",
        "no object",
        "no column",
        "empty prompt",
        "number",
        "role",
        "content",
        "encoding",
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        read_prompts(path, settings())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.parquet", b"PAR1 no", "p.parquet cannot be read as Parquet"),
        ("p.csv", b"prompt,answer\na,1\nb,2,3\n", "p.csv line 3 has not the 2 fields"),
        ("p.csv", b"prompt,answer\na\n", "p.csv line 2 has not the 2 fields"),
        ("p.csv", b'prompt\n"a" x\n', "p.csv line 2 is no CSV|p.csv line 3 is no CSV"),
        ("p.csv", b"prompt\n\xff\n", "is no CSV"),
    ],
    ids=["parquet", "too many fields", "too few fields", "quotes", "encoding"],
)
def test_a_damaged_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_prompts(tmp_path / name, settings())


def test_duplicates_keep_the_first_row(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}, {"prompt": "a", "answer": 3}]
    unique = without_duplicates(read_prompts(write_jsonl(tmp_path / "p.jsonl", rows), settings()))
    assert [prompt.columns["answer"] for prompt in unique] == [1, 2]


names = st.lists(st.text(min_size=1, max_size=3), min_size=8, max_size=30, unique=True)


@given(names, st.integers(0, 5))
def test_held_out_and_blocks_are_disjoint_and_cover_the_pool(ids: list[str], seed: int) -> None:
    held_out, pool = split(ids, held_out=2, seed=seed)
    config = settings(per_iteration=2)
    blocks = [block(pool, iteration=i + 1, config=config, seed=seed) for i in range(len(pool) // 2)]
    used = [prompt_id for prompts in blocks for prompt_id in prompts]
    assert len(set(used)) == len(used)
    assert not set(used) & set(held_out)
    assert sorted([*held_out, *pool]) == sorted(ids)


@given(names, names)
def test_more_rows_keep_the_order_of_the_old_ones(ids: list[str], more: list[str]) -> None:
    both = shuffled(dict.fromkeys([*ids, *more]), 0, "split")
    assert [prompt_id for prompt_id in both if prompt_id in ids] == shuffled(ids, 0, "split")


def test_a_used_up_pool_is_an_error_or_a_new_lap() -> None:
    pool = list("abcdef")
    with pytest.raises(UserError, match=r"prompts.perIteration is 2, and iteration 4 finds 6 prompts.*Reshuffle"):
        block(pool, iteration=4, config=settings(), seed=0)
    again = settings(reuse="Reshuffle")
    second_lap = [prompt for i in (4, 5, 6) for prompt in block(pool, iteration=i, config=again, seed=0)]
    assert sorted(second_lap) == pool
    assert block(pool, iteration=1, config=again, seed=0) == ["a", "b"]


def test_seeds_differ_in_every_argument() -> None:
    calls = [(0, "generate", 1, "p", 0), (1, "generate", 1, "p", 0), (0, "evaluate", 1, "p", 0)]
    calls += [(0, "generate", 2, "p", 0), (0, "generate", 1, "q", 0), (0, "generate", 1, "p", 1)]
    seeds = {sample_seed(*call) for call in calls}
    assert len(seeds) == len(calls)
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_a_system_prompt_is_added_once() -> None:
    user = ({"role": "user", "content": "x"},)
    both = with_system_prompt(user, "Be brief.")
    assert [message["role"] for message in both] == ["system", "user"]
    assert with_system_prompt(both, "Other") == both
    assert with_system_prompt(user, None) == user
