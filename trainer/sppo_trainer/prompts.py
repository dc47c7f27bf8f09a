"""Prompts: from the user's files to unique rows, the held-out split and each iteration's block.

Everything here is a pure function of the files' content and the seed, so that a repeated stage, another number of
workers, or more iterations later change no prompt of an earlier iteration.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sppo_trainer.artifacts import canonical_json
from sppo_trainer.config import Prompts
from sppo_trainer.errors import DataError, MissingError

Messages = tuple[dict[str, str], ...]
# Some chat templates print today's date. Everything of every run is rendered on this day instead.
PINNED_DATE = datetime.date(2024, 7, 26)
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One row of the user's file."""

    messages: Messages
    columns: dict[str, Any]
    where: str
    """File and line, for messages to the user."""

    @property
    def prompt_id(self) -> str:
        return hashlib.sha256(canonical_json(self.messages)).hexdigest()[:16]


def sample_seed(seed: int, purpose: str, iteration: int, prompt_id: str, k: int) -> int:
    """The 64-bit seed of one response: the same whoever samples it, and whenever."""
    return seed_of(f"{seed}/{purpose}/{iteration}/{prompt_id}/{k}")


def seed_of(text: str) -> int:
    """64 bits of the text's hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def read_prompts(path: Path, config: Prompts) -> list[Prompt]:
    """All rows of a file or of a dataset folder, in order; raises MissingError or DataError naming file and line."""
    try:
        prompts = [prompt for file in _files(path, config.split) for prompt in _read_file(file, config.column)]
    except PermissionError as error:
        raise MissingError(f"prompts.source {config.source} may not be read ({error}): permit it") from error
    if not prompts:
        raise DataError(f"prompts.source {config.source} has no rows: give a file with at least one prompt")
    return prompts


def without_duplicates(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The first of all rows with equal chat messages."""
    unique: dict[str, Prompt] = {}
    for prompt in prompts:
        unique.setdefault(prompt.prompt_id, prompt)
    return list(unique.values())


def shuffled(ids: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The ids ordered by a hash of seed and id: no row's place depends on which other rows there are."""
    return sorted(ids, key=lambda prompt_id: hashlib.sha256(f"{seed}/{purpose}/{prompt_id}".encode()).digest())


def split(ids: Sequence[str], *, held_out: int, seed: int) -> tuple[list[str], list[str]]:
    """(held-out, pool) in seeded order; the held-out prompts come first, so they are fixed before any block."""
    order = shuffled(ids, seed, "split")
    return order[:held_out], order[held_out:]


def block(pool: Sequence[str], *, iteration: int, config: Prompts, seed: int) -> list[str]:
    """The prompts of iteration 1, 2, …: disjoint slices of the pool.

    Raises DataError if the pool is used up and `prompts.reuse` is Never; with Reshuffle it starts over in a new order.
    """
    size = config.per_iteration
    blocks = len(pool) // size
    if blocks == 0 or (config.reuse == "Never" and iteration > blocks):
        raise DataError(
            f"prompts.perIteration is {size}, and iteration {iteration} finds {len(pool)} prompts beside the held-out "
            f"ones, enough for {blocks} iterations: add prompts, lower perIteration, or set prompts.reuse to Reshuffle"
        )
    lap, index = divmod(iteration - 1, blocks)
    order = list(pool) if lap == 0 else shuffled(pool, seed, f"lap-{lap}")
    return order[index * size : (index + 1) * size]


def with_system_prompt(messages: Messages, system_prompt: str | None) -> Messages:
    if system_prompt is None or messages[0]["role"] == "system":
        return messages
    return ({"role": "system", "content": system_prompt}, *messages)


def _files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and not file.name.startswith("."))
    # The hub's layout: data/train-00000-of-00002.parquet, or train.jsonl, or train/part.csv.
    named = [file for file in files if split in (file.stem.split("-")[0], file.parent.name)]
    if not files:
        raise MissingError(f"{path} holds no {', '.join(SUFFIXES)} file: check prompts.source")
    if not named and len(files) > 1:
        raise MissingError(f"{path} has no file of split {split!r}: check prompts.split, or name one file")
    return named or files


def _read_file(path: Path, column: str) -> Iterator[Prompt]:
    for line, row in _rows(path):
        where = f"{path.name} line {line}"
        if column not in row:
            raise MissingError(
                f"{where} has no column {column!r} but {', '.join(map(repr, sorted(row)))}: check prompts.column"
            )
        columns = {name: value for name, value in row.items() if name != column}
        yield Prompt(messages=_messages(row[column], where, column), columns=columns, where=where)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row); lines count from 1, as editors do, and rows do in Parquet. All values of CSV are texts."""
    match path.suffix:
        case ".parquet":
            yield from enumerate(_parquet(path), start=1)
        case ".csv":
            yield from _csv(path)
        case _:
            with path.open("rb") as stream:
                for number, line in enumerate(stream, start=1):
                    if line.strip():
                        yield number, _json_row(line, f"{path.name} line {number}")


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except PermissionError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet ({error}): repair the file") from error
    return rows


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path.name} line {reader.line_num} has not the {len(reader.fieldnames or ())} fields of the "
                        "header: quote fields that hold commas or line breaks"
                    )
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path.name} line {reader.line_num + 1} is no CSV ({error}): repair the line") from error


def _json_row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}): write one JSON object per line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} holds a {type(row).__name__}: write one JSON object per line")
    return row


def _messages(value: Any, where: str, column: str) -> Messages:
    if _is_text(value) and value.strip():
        return ({"role": "user", "content": value},)
    if isinstance(value, list) and value and all(_is_message(item) for item in value) and value[-1]["role"] == "user":
        return tuple({"role": item["role"], "content": item["content"]} for item in value)
    shown = json.dumps(value, ensure_ascii=False, default=str)[:60]
    raise DataError(
        f"{where}: column {column!r} holds {shown}: give a text, or a list of chat messages "
        "{role, content} that ends with the user's"
    )


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and all(_is_text(item.get(key)) for key in ("role", "content"))


def _is_text(value: Any) -> bool:
    """JSON can hold halves of a surrogate pair, which no tokenizer takes."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
