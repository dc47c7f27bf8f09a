"""The options of the command `sppo`, with examples; what they do is in cli.py."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from sppo_operator import __version__
from sppo_operator.commands import completion
from sppo_operator.decide import Stage
from sppo_operator.errors import UserError

SHELLS = ("bash", "zsh", "fish")
TARGET = "TARGET is the name of a run on the cluster, or the folder that was the --workspace of `sppo run`."
EXAMPLES = {
    "": """
  {prog} run demo.yaml --workspace ./demo    on this machine
  {prog} validate demo.yaml                  would kubectl apply take it?
  {prog} watch demo -n lab                   follow a run to its end
  {prog} describe demo                       what happened, what to do next?
  {prog} logs demo -f                        of the stage that matters
  {prog} report ./demo                       a file to send around""",
    "run": """
  {prog} run demo.yaml --workspace ./demo    again: goes on after a crash
  {prog} run demo.yaml --workspace ./demo --plain > run.log""",
    "validate": """
  {prog} validate demo.yaml
  {prog} validate runs/*.yaml
  helm template . | {prog} validate -        passes other kinds over""",
    "watch": """
  {prog} watch demo                          exit status 0 if it succeeds
  {prog} watch ./demo                        one that runs on this machine
  {prog} watch                               all runs of the namespace
  {prog} watch -A | tee runs.log             one line per event""",
    "logs": """
  {prog} logs demo                           of the failed, running or last stage
  {prog} logs demo -f                        on to the end of the run
  {prog} logs demo --stage train --iteration 2 --previous
  {prog} logs ./demo --raw | jq -R 'fromjson? | .progress'""",
    "describe": """
  {prog} describe demo -n lab
  {prog} describe ./demo | less -R""",
    "report": """
  {prog} report ./demo                       writes ./demo/report.html
  {prog} report demo -n lab -o demo.html     by a short-lived pod of yours""",
    "completion": """
  source <(sppo completion bash)             for good: in ~/.bashrc
  source <(sppo completion zsh)              after compinit, in ~/.zshrc
  sppo completion fish | source              in ~/.config/fish/config.fish
  kubectl sppo completes by kubectl's own completion and needs none of this.""",
}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Examples as they are written, and room for the longest name of a command."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with what was probably meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As the base class, but a command itself refuses what it does not know: its options are what was meant."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            meant = _meant(unknown[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(UserError.exit_code, f"error: {message}: see {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            raise argparse.ArgumentError(
                action, f"{value!r} is none of {', '.join(choices)}{_meant(str(value), choices)}"
            )


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def make_parser(prog: str) -> argparse.ArgumentParser:
    """`prog` is how users call it: `sppo` or `kubectl sppo`."""
    parser = _Parser(
        prog=prog,
        description="Self-Play Preference Optimization runs, on this machine and on a cluster.",
        epilog=_examples("", prog),
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", title="commands")

    def add(name: str, summary: str, description: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=textwrap.fill(f"{summary[0].upper()}{summary[1:]}. {description}".strip(), 80),
            epilog=_examples(name, prog),
            formatter_class=_Formatter,
        )

    _run(add("run", "carry out an SPPORun with processes on this machine"))
    _validate(add("validate", "say whether the API server would accept SPPORuns", "No cluster is asked."))
    _watch(add("watch", "follow a run to its end, or all runs", TARGET))
    _logs(add("logs", "show the log of the stage that matters", TARGET))
    _describe(add("describe", "explain a run: what happened, why, and what to do next", TARGET))
    _report(add("report", "write the HTML report of a run", TARGET))
    _completion(add("completion", "print what a shell needs to complete sppo"))
    return parser


def _examples(name: str, prog: str) -> str:
    return f"examples:{EXAMPLES[name].format(prog=prog)}"


def _complete(action: argparse.Action, completer: Callable[..., Iterable[str]]) -> None:
    action.completer = completer  # type: ignore[attr-defined] # where argcomplete looks


def _run(parser: argparse.ArgumentParser) -> None:
    _complete(parser.add_argument("file", type=Path, metavar="FILE", help="the SPPORun"), completion.files)
    folder = parser.add_argument(
        "--workspace", dest="folder", type=Path, required=True, metavar="DIR", help="folder for models, data and state"
    )
    _complete(folder, completion.folders)
    _plain(parser)


def _validate(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="files with SPPORuns; - is standard input"
    )
    _complete(files, completion.files)


def _watch(parser: argparse.ArgumentParser) -> None:
    _target(parser, nargs="?")
    everywhere = "all runs of all namespaces"
    parser.add_argument("-A", "--all-namespaces", dest="everywhere", action="store_true", help=everywhere)
    _plain(parser)


def _logs(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written, to the end of the run")
    parser.add_argument("--stage", choices=[stage.value for stage in Stage], help="of this stage")
    parser.add_argument("--iteration", type=_count, metavar="N", help="of this iteration (the newest)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--attempt", type=_number, metavar="N", help="of this attempt of the stage (the newest)")
    which.add_argument("-p", "--previous", action="store_true", help="of the attempt before the newest")
    parser.add_argument("--worker", type=_count, metavar="K", help="of this worker (the one that explains the end)")
    parser.add_argument("--tail", type=_count, metavar="N", help="the last N lines only")
    parser.add_argument("--raw", action="store_true", help="lines as they were written, progress as JSON")


def _describe(parser: argparse.ArgumentParser) -> None:
    _target(parser)


def _report(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where to; - is standard output (report.html in the folder; RUN-report.html here)",
    )
    _complete(output, completion.files)
    _target(parser)


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def _plain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plain", action="store_true", help="one line per event, also on a terminal")


def _target(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    help_text = "name or folder of a run"
    help_text += "" if nargs is None else "; without it all runs of the namespace"
    _complete(parser.add_argument("target", nargs=nargs, metavar="TARGET", help=help_text), completion.targets)
    group = parser.add_argument_group("cluster", "as kubectl has them; the kubeconfig is that of KUBECONFIG")
    namespace = group.add_argument("-n", "--namespace", default="", metavar="NAME", help="namespace of the run")
    _complete(namespace, completion.namespaces)
    context = group.add_argument("--context", default="", metavar="NAME", help="context of the kubeconfig")
    _complete(context, completion.context_names)
    kubeconfig = group.add_argument("--kubeconfig", type=Path, metavar="FILE", help="another kubeconfig")
    _complete(kubeconfig, completion.files)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _number(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError("the first is 1")
    return int(text)
