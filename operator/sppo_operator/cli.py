"""The command `sppo`: run an SPPORun on this machine, check one, write its report.

Exit status: 0 done; 64..78 the user must change something (a stage's own code, if one said so; 64 for wrong usage); 1 a
stage failed too often, the reader of a pipe went away, or a bug; 129 after SIGHUP, 130 after Ctrl-C and 143 after
SIGTERM, when the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sppo_operator import __version__
from sppo_operator.errors import MissingError, StorageError, UserError
from sppo_operator.local import REPORT_FILE, run_locally
from sppo_operator.report import write_report
from sppo_operator.results import Results
from sppo_operator.spec import Run
from sppo_operator.store import RunFile
from sppo_operator.streams import make_lasting, silence
from sppo_operator.validation import admit, parse_manifest
from sppo_operator.view import LiveView, PlainView, View

STORAGE_FAULTS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    make_lasting()
    options = _parser().parse_args(arguments)
    try:
        status = options.command(options)
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
        where = error.filename or options.folder
        fault = StorageError(f"{where} cannot be written ({error.strerror}): free space or mend it, and start again")
    print(f"error: {fault}", file=sys.stderr)
    sys.exit(fault.exit_code)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(UserError.exit_code, f"error: {message}: see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sppo", description="Self-Play Preference Optimization.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="carry out an SPPORun with processes on this machine")
    run.add_argument("file", type=Path, metavar="FILE", help="the SPPORun")
    run.add_argument(
        "--workspace", dest="folder", type=Path, required=True, metavar="DIR", help="folder for models, data and state"
    )
    run.add_argument("--plain", action="store_true", help="one line per event, also on a terminal")
    run.set_defaults(command=_run)

    validate = commands.add_parser("validate", help="say whether the API server would accept an SPPORun")
    validate.add_argument("file", type=Path, metavar="FILE", help="the SPPORun")
    validate.set_defaults(command=_validate)

    report = commands.add_parser("report", help="write the HTML report of a run again")
    report.add_argument("folder", type=Path, metavar="DIR", help="the --workspace of the run")
    report.set_defaults(command=_report)
    return parser


def _run(options: argparse.Namespace) -> int:
    view: View = PlainView(sys.stdout) if options.plain or not sys.stdout.isatty() else LiveView()
    folder = options.folder.absolute()
    if options.file.resolve() == RunFile(folder).path.resolve():
        raise UserError(f"{options.file} is where sppo keeps the state of the run: give the manifest another name")
    return run_locally(_manifest(options.file), folder, view)


def _validate(options: argparse.Namespace) -> int:
    run = admit(_manifest(options.file))
    print(f"spporun.sppo.dev/{run['metadata']['name']} is valid")
    return 0


def _report(options: argparse.Namespace) -> int:
    folder = options.folder.absolute()
    resource = RunFile(folder).read()
    if resource is None:
        raise MissingError(f"{folder} holds no run.yaml: give the --workspace of a run")
    write_report(folder / REPORT_FILE, resource, Results.of(Run.of(resource), folder))
    print(folder / REPORT_FILE)
    return 0


def _manifest(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise MissingError(f"{path} cannot be read ({error.strerror}): name the file of an SPPORun") from error
    except UnicodeDecodeError as error:
        raise MissingError(f"{path} is not text in UTF-8: name the file of an SPPORun") from error
    return parse_manifest(text)
