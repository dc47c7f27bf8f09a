"""The command `sppo`, which is `kubectl sppo` as well: its options, and what each command does.

Exit status: 0 done; 64..78 the user must change something (a stage's own code, if one said so; 64 for wrong usage); 1 a
stage failed too often, the reader of a pipe went away, or a bug; 129 after SIGHUP, 130 after Ctrl-C and 143 after
SIGTERM, when the same command goes on where it was.

What a command needs is imported when it runs: --help and completion are to answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sppo_operator.commands import completion
from sppo_operator.commands.options import make_parser
from sppo_operator.commands.streams import make_lasting, prepare_streams, silence
from sppo_operator.errors import InvalidResource, KubeconfigError, MissingError, StorageError, UserError

if TYPE_CHECKING:
    from sppo_operator.commands.source import Source

STORAGE_FAULTS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENXIO),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
PLUGIN = "kubectl-sppo"
MAX_BYTES = 3 * 1024**2
"""Of a file with manifests: the API server takes 3 MiB in one request, and stores half of it."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    prepare_streams()
    prog = "kubectl sppo" if Path(sys.argv[0]).name == PLUGIN else "sppo"
    parser = make_parser(prog)
    completion.answer(parser)
    options = argparse.Namespace(prog=prog)
    try:
        parser.parse_args(arguments, options)
        if options.command is None:
            parser.print_help()
            sys.exit(0)
        status = COMMANDS[options.command](options)
        sys.stdout.flush()
        sys.exit(status)
    except KeyboardInterrupt:  # before or after the run, which takes the signal itself
        sys.exit(130)
    except BrokenPipeError:
        silence()
        sys.exit(1)
    except UserError as error:
        fault = error
    except OSError as error:
        if error.errno not in STORAGE_FAULTS:
            raise
        where = error.filename or getattr(options, "folder", "the output")
        fault = StorageError(f"{where} cannot be written ({error.strerror}): free space or mend it, and start again")
    print(f"error: {fault}", file=sys.stderr)
    sys.exit(fault.exit_code)


def complete_for_kubectl() -> None:
    """The program kubectl_complete-sppo."""
    completion.answer_kubectl(make_parser("kubectl sppo"), sys.argv[1:])


def _run(options: argparse.Namespace) -> int:
    from sppo_operator.commands.local import run_locally
    from sppo_operator.commands.view import chosen_view
    from sppo_operator.store import RunFile
    from sppo_operator.validation import parse_manifest

    make_lasting(sys.stdout)
    folder = options.folder.absolute()
    if options.file.resolve() == RunFile(folder).path.resolve():
        raise UserError(f"{options.file} is where sppo keeps the state of the run: give the manifest another name")
    return run_locally(parse_manifest(_text(options.file)), folder, chosen_view(plain=options.plain))


def _validate(options: argparse.Namespace) -> int:
    from sppo_operator.validation import admit, check_kind

    status = 0
    for file in options.files:
        where = f"{file}: " if len(options.files) > 1 else ""
        try:
            runs = _runs_in(file, where)
        except (InvalidResource, MissingError) as error:
            status = _refuse(where, error)
            continue
        for run in runs:
            try:
                check_kind(run)
                print(f"{where}spporun.sppo.dev/{admit(run)['metadata']['name']} is valid")
            except InvalidResource as error:
                status = _refuse(where, error)
    return status


def _runs_in(file: Path, where: str) -> list[dict[str, Any]]:
    from sppo_operator.validation import KIND, parse_documents

    documents = parse_documents(_text(file))
    runs = [document for document in documents if document.get("kind") == KIND or len(documents) == 1]
    if not runs:
        raise InvalidResource(f"no object of kind {KIND} is in {_named(file)}: name a file that has one")
    if passed := len(documents) - len(runs):
        print(f"{where}passed over {passed} objects of other kinds", file=sys.stderr)
    return runs


def _refuse(where: str, error: UserError) -> int:
    print(f"error: {where}{error}", file=sys.stderr)
    return error.exit_code


def _watch(options: argparse.Namespace) -> int:
    from sppo_operator.commands.view import chosen_view
    from sppo_operator.commands.watch import watch, watch_all

    view = chosen_view(plain=options.plain)
    if options.target is not None:
        if options.everywhere:
            raise UserError("a TARGET is in one namespace: leave --all-namespaces out")
        return _with_source(options, lambda source: watch(source, view))

    from sppo_operator.commands.cluster import Runs

    async def all_runs() -> int:
        async with Runs(completion.options_of(options), everywhere=options.everywhere) as runs:
            return await watch_all(runs, view, everywhere=options.everywhere)

    return _finished(all_runs())


def _logs(options: argparse.Namespace) -> int:
    from sppo_operator.commands.stage_logs import LogOptions, show_logs
    from sppo_operator.decide import Stage

    wanted = LogOptions(
        stage=Stage(options.stage) if options.stage else None,
        iteration=options.iteration,
        attempt=options.attempt,
        previous=options.previous,
        worker=options.worker,
        follow=options.follow,
        raw=options.raw,
        tail=options.tail,
    )
    return _with_source(options, lambda source: show_logs(source, wanted, sys.stdout))


def _describe(options: argparse.Namespace) -> int:
    from rich.console import Console

    from sppo_operator.commands.board import utc_now
    from sppo_operator.commands.describe import describe
    from sppo_operator.commands.view import PLAIN_COLUMNS

    console = Console(width=None if sys.stdout.isatty() else PLAIN_COLUMNS)

    async def command(source: Source) -> int:
        await describe(source, console, utc_now())
        return 0

    return _with_source(options, command)


def _report(options: argparse.Namespace) -> int:
    from sppo_operator.commands.report import report_command

    return _with_source(options, lambda source: report_command(source, options.output))


def _completion(options: argparse.Namespace) -> int:
    print(completion.script(options.shell))
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "validate": _validate,
    "watch": _watch,
    "logs": _logs,
    "describe": _describe,
    "report": _report,
    "completion": _completion,
}


def _with_source(options: argparse.Namespace, command: Callable[[Source], Coroutine[Any, Any, int]]) -> int:
    """Carry a command out on what TARGET names."""
    from sppo_operator.target import FolderTarget, target_of

    target = target_of(options.target, completion.options_of(options))

    async def carry_out() -> int:
        if isinstance(target, FolderTarget):
            from sppo_operator.commands.folder import FolderSource

            return await command(FolderSource(target, options.prog))
        from sppo_operator.commands.cluster import ClusterSource

        try:
            found = ClusterSource(target, options.prog)
        except KubeconfigError as error:
            if target.options.given():
                raise
            raise KubeconfigError(f"{options.target} is no folder of a run, and {error}") from error
        async with found as source:
            return await command(source)

    return _finished(carry_out())


def _finished(command: Coroutine[Any, Any, int]) -> int:
    """Its exit status; a signal unwinds it, so that the terminal is left as it was."""
    received: list[int] = []

    async def carry_out() -> int:
        task, loop = asyncio.ensure_future(command), asyncio.get_running_loop()

        def stop(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop, number)
        return await task

    try:
        return asyncio.run(carry_out())
    except asyncio.CancelledError:
        return 128 + received[0]


def _text(path: Path) -> str:
    try:
        content = _content(path)
    except OSError as error:
        raise MissingError(f"{_named(path)} cannot be read ({error.strerror}): name the file of an SPPORun") from error
    if len(content) > MAX_BYTES:
        too_much = f"more than {MAX_BYTES // 1024**2} MiB, which no API server takes"
        raise InvalidResource(f"{_named(path)} holds {too_much}: split it")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MissingError(f"{_named(path)} is not text in UTF-8: name the file of an SPPORun") from error


def _named(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def _content(path: Path) -> bytes:
    """No more than one byte too much: a device or a pipe may have no end."""
    if str(path) != "-":
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    if sys.stdin is None:
        raise MissingError("standard input is closed: name the file of an SPPORun")
    return sys.stdin.buffer.read(MAX_BYTES + 1)
