"""The frame around every stage: configuration in, exit code and result out, progress on the way.

    SPPO_CONFIG            the configuration, one JSON document (config.py)
    SPPO_TERMINATION_LOG   where the result goes; in a pod the kubelet's /dev/termination-log
    JOB_COMPLETION_INDEX   which of the stage's workers this is, 0 if unset

Exit codes: 0 done; 64..78 the user's or the data's fault (errors.py); 143 after SIGTERM; anything else is retried.
The result is one JSON object of at most 4096 bytes: {"metrics", "contentDigest"}, with "model" if the stage made one,
or {"error": one sentence}.
Where several processes do a stage together, `ranks.py` starts them and speaks for them.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NoReturn, TypeVar

from sppo_trainer import __version__
from sppo_trainer.artifacts import Artifact, Draft, Manifest, Workspace
from sppo_trainer.config import StageConfig
from sppo_trainer.config_document import parse
from sppo_trainer.errors import SPPOError, StorageError, UserError

KUBELET_TERMINATION_LOG = Path("/dev/termination-log")
RESULT_BYTES = 4096
PROGRESS_SECONDS = 5.0
NOTED_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "vllm", "numpy")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}

Config = TypeVar("Config", bound=StageConfig)


class ExitError(SPPOError):
    """Ends the stage with the exit code and the sentence of another process."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Stage(Generic[Config]):
    """What a stage works with: its configuration, its workspace, its own artifact."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.workspace = Workspace(Path(config.workspace), namespace=config.run.namespace, name=config.run.name)
        self.artifact: Artifact = self.workspace.stage(config.iteration, config.stage)
        self.worker = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
        self.started = time.time()

    def partial_result(self) -> dict[str, Any]:
        """What a worker reports when another one commits the stage."""
        return {"metrics": {"worker": self.worker}}

    def commit(
        self,
        draft: Draft,
        *,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        rows: int,
        result: Mapping[str, Any],
        parts: Mapping[str, str] | None = None,
        kind: str | None = None,
        iteration: int | None = None,
    ) -> Manifest:
        manifest = Manifest(
            stage=kind or self.config.stage,
            iteration=self.config.iteration if iteration is None else iteration,
            config=config,
            inputs=inputs,
            rows=rows,
            result=result,
            parts=parts or {},
        )
        return draft.commit(manifest, self._provenance())

    def _provenance(self) -> dict[str, Any]:
        return {
            "trainer": __version__,
            "host": platform.node(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "processes": self.config.ranks,
            "packages": _packages(),
            "accelerator": _accelerator(),
            "started": self.started,
            "seconds": round(time.time() - self.started, 3),
        }


def _packages() -> dict[str, str]:
    """Versions of what the numbers depend on, as installed."""
    found = {}
    for name in NOTED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _accelerator() -> str | None:
    """Of the stages that loaded torch; the others did without one."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else None


Body = Callable[[Stage[Config]], Manifest | Mapping[str, Any]]


class Progress:
    """Says how far a stage is: a JSON line at most every 5 s, or a progress bar on a terminal.

    Of processes that work together, one is `shown`.
    """

    def __init__(self, total: int, unit: str, *, shown: bool = True) -> None:
        self.total, self.unit, self.shown, self.done = total, unit, shown, 0
        self._started = self._said = time.monotonic()
        self._first: int | None = None
        self._bar: Any = None
        if shown and sys.stdout.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit)

    def update(self, done: int, **figures: float) -> None:
        """`done` of `total` units are finished; the first call only sets where this attempt starts from."""
        if not self.shown:
            return
        if self._first is None:
            self._first = done
        advance, self.done = done - self.done, done
        if self._bar is not None:
            self._bar.update(advance)
            self._bar.set_postfix(figures)
            return
        now = time.monotonic()
        if now - self._said < PROGRESS_SECONDS and 0 < done < self.total:
            return
        self._said = now
        fresh = done - self._first
        left = (now - self._started) / fresh * (self.total - done) if fresh else None
        line = {
            "done": done,
            "total": self.total,
            "unit": self.unit,
            "secondsLeft": None if left is None else round(left),
            "figures": {name: float(f"{value:.4g}") for name, value in figures.items()},
        }
        print(json.dumps({"progress": line}), flush=True)


def main(config_type: type[Config], body: Body[Config]) -> NoReturn:
    """Run the stage as this process."""
    signal.signal(signal.SIGTERM, _terminate)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    sys.exit(run(config_type, body))


def run(config_type: type[Config], body: Body[Config]) -> int:
    """Run the stage in this process and return its exit code."""
    try:
        stage = Stage(parse(config_type, os.environ.get("SPPO_CONFIG", "")))
        stage.workspace.adopt(stage.config.run.digest)
        # Processes that work together must also agree on whether there is work: their body asks the first of them.
        finished = stage.artifact.manifest() if stage.config.ranks == 1 else None
        result = finished or body(stage)
    except (UserError, ExitError) as error:
        return _failed(error, error.exit_code)
    except Exception as error:  # noqa: BLE001  # the edge: whatever it is, the operator gets a sentence and an exit code
        if fault := _storage_fault(error):
            return _failed(fault, fault.exit_code)
        traceback.print_exc()
        return _failed(error, 1)
    if isinstance(result, Manifest):
        result = {"metrics": result.result, "contentDigest": result.content_digest, **_model(stage, result)}
    _write_result(result)
    return 0


def _model(stage: Stage[Any], manifest: Manifest) -> dict[str, str]:
    """Where the model is that the stage made, from the run's folder: who keeps the result may not see the workspace."""
    folder = stage.artifact.folder.relative_to(stage.workspace.folder)
    config = next((file.path for file in manifest.files if file.name == "model/config.json"), None)
    return {} if config is None else {"model": str(folder / Path(config).parent)}


def _terminate(signum: int, _frame: FrameType | None) -> NoReturn:
    # Nothing needs a clean end: what is committed is whole, and the rest is done again. Leaving at once also keeps
    # native threads and engines from holding the exit beyond the grace period.
    os._exit(128 + signum)


def _failed(error: Exception, exit_code: int) -> int:
    text = str(error).encode(errors="backslashreplace").decode()  # a message may quote what no file can hold
    sentence = " ".join(text.split()) or type(error).__name__
    if exit_code == 1 and not isinstance(error, ExitError):
        sentence = f"{type(error).__name__}: {sentence}"
    # On a full disk neither may be possible; the exit code still tells whose fault it was.
    with contextlib.suppress(OSError):
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        _write_result({"error": sentence})
    return exit_code


def _write_result(result: Mapping[str, Any]) -> None:
    text = json.dumps(result, ensure_ascii=False)
    sentence = str(result.get("error", ""))
    while len(text.encode()) > RESULT_BYTES and sentence:
        sentence = sentence[: len(sentence) * 3 // 4]
        text = json.dumps({"error": sentence + " …"}, ensure_ascii=False)
    assert len(text.encode()) <= RESULT_BYTES, "a stage reports at most 4096 bytes of metrics"
    path = os.environ.get("SPPO_TERMINATION_LOG")
    if path is None and KUBELET_TERMINATION_LOG.exists():
        path = str(KUBELET_TERMINATION_LOG)
    if path is None:  # started by hand, outside a container
        print(text, flush=True)
    else:
        Path(path).write_text(text, "utf-8")


def _storage_fault(error: BaseException) -> StorageError | None:
    """What the filesystem refused, if that is behind the error; safetensors and checkpoints report it as text only."""
    for cause in _causes(error):
        if isinstance(cause, PermissionError):
            return StorageError(
                f"{cause.filename} may not be used by user {os.getuid()} ({cause.strerror}): give that user, or its "
                f"group {os.getgid()}, the right to read and write the workspace"
            )
        reason = str(cause) if isinstance(cause, OSError) and cause.errno in _FULL else ""
        if reason := reason or next((text for text in map(os.strerror, _FULL) if text in str(cause)), ""):
            return StorageError(f"the workspace cannot take more data ({reason}): free space or enlarge it")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is not None and not any(cause is known for known in seen):
            seen.append(cause)
            waiting += [cause.__context__, cause.__cause__]
            yield cause
