"""The pages of the documentation: their blocks of commands, how each is verified, and their links.

`python tests/support/documents.py` writes the table of docs/README.md that lists what no page's test runs.
docs/README.md explains the markers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELL = {"console", "sh"}
MARKER = re.compile(r"<!-- test: (?P<kind>laptop|node|form)(?:, until (?P<until>.+?)|(?P<reason> .+?))? -->")
INSTALLED = "<!-- page: installed -->"
INDEX = ROOT / "docs/README.md"
NAMED = re.compile(r"`((?:(?:kubectl|helm|make|docker|kind|git|sppo|pytest|python3?) |\.venv/bin/\S+ )[^`]+)`")
"""A command within a sentence: code that starts with the name of a program and says what it is to do."""
STANDS_FOR = re.compile(r"[A-Z]{3,}")
"""A word that a reader replaces, in a command within a sentence."""
NOT_RUN = {
    "make faults": "it kills stages for an hour",
    "make sbom": "it needs docker",
    "make scan": "it asks a database on the network",
    "make lock": "it asks the package registry",
    ".venv/bin/python -m monitoring.preview": "tests/cluster/test_monitoring.py runs it against a Prometheus",
    "kubectl sppo logs demo --previous": "no attempt of that run failed",
    "kubectl logs --previous": "no container was restarted",
    "kubectl describe workload": "it needs Kueue",
    "kubectl get endpointslices -n default": "its answer is that of your cluster",
}
"""Commands within sentences that no block runs in any form, and why."""
LIST = re.compile(r"(?<=<!-- list: begin -->\n).*(?=<!-- list: end -->)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block; `marker` is the line before it."""

    page: Path
    line: int
    language: str
    text: str
    marker: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def kind(self) -> str:
        """laptop, node or form; empty without a marker."""
        found = MARKER.fullmatch(self.marker)
        return found["kind"] if found else ""

    @property
    def until(self) -> str:
        """The text whose appearance ends the block's last command; empty if it ends by itself."""
        found = MARKER.fullmatch(self.marker)
        return (found["until"] or "") if found else ""

    @property
    def reason(self) -> str:
        found = MARKER.fullmatch(self.marker)
        return (found["reason"] or "").strip() if found else ""

    @property
    def script(self) -> str:
        """The commands, without what they print."""
        if self.language == "sh":
            return self.text
        lines, taken = [], False
        for line in self.text.splitlines():
            if line.startswith("$ ") or taken:
                lines.append(line.removeprefix("$ "))
                taken = line.endswith("\\")
        return "\n".join(lines)

    @property
    def commands(self) -> list[str]:
        """One line each, continuations joined; comments and empty lines left out."""
        lines = (re.sub(r"\s#.*", "", line).strip() for line in self.script.replace("\\\n", " ").splitlines())
        return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def pages() -> list[Path]:
    """All that readers follow step by step."""
    first = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return [*first, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "charts").glob("*/README.md"))]


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text("utf-8").splitlines()
    start, fence, language = -1, "", ""
    for number, line in enumerate(lines):
        if start < 0 and (opening := re.match(r" *(`{3,})(\S*)", line)):
            start, fence, language = number, opening[1], opening[2]
        elif start >= 0 and line.strip() == fence:
            text = "\n".join(lines[start + 1 : number])
            marker = lines[start - 1].strip() if start else ""
            yield Block(page=page, line=start + 1, language=language, text=text, marker=marker)
            start = -1
    if start >= 0:
        raise ValueError(f"{page.relative_to(ROOT)}:{start + 1}: a block is not closed: add {fence}")


def shell_blocks(page: Path, kind: str = "") -> list[Block]:
    return [block for block in blocks(page) if block.language in SHELL and (not kind or block.kind == kind)]


def listed() -> str:
    """The table of what no page's test runs, for docs/README.md."""
    rows = [
        f"| [{page.relative_to(ROOT)}]({link(page)}) | `{command.replace('|', chr(92) + '|')}` | {why} |"
        for page in pages()
        for command, why in not_run(page).items()
    ]
    return "\n".join(["| page | command | why not |", "|---|---|---|", *rows]) + "\n"


def not_run(page: Path) -> dict[str, str]:
    """The page's commands whose form alone is checked, and why; one within a sentence may stand in a block elsewhere."""
    blocked = {command: block.reason for block in shell_blocks(page, "form") for command in block.commands}
    formed = [part for page in pages() for block in shell_blocks(page, "form") for part in parts(block)]
    done = [part for page in pages() for block in shell_blocks(page) if block.kind != "form" for part in parts(block)]
    named = {command for command in inline_commands(page) if not any(begins(part, command) for part in done + formed)}
    return blocked | {command: NOT_RUN.get(command, "") for command in sorted(named)}


def parts(block: Block) -> list[list[str]]:
    """The words of each command, pipes and sequences taken apart."""
    return [words(part) for command in block.commands for part in re.split(r" (?:&&|\|\|?) |; |<\(", command)]


def words(command: str) -> list[str]:
    return command.removeprefix(".venv/bin/").split()


def begins(done: list[str], command: str) -> bool:
    """Whether what was done is this command, perhaps with more arguments; NAME in a sentence stands for any word."""
    said = words(command)
    patterns = [STANDS_FOR.sub(r"\\S+", re.escape(word)) for word in said]
    return len(said) <= len(done) and all(map(re.fullmatch, patterns, done[: len(said)]))


def link(page: Path) -> str:
    return page.name if page.parent == INDEX.parent else f"../{page.relative_to(ROOT)}"


def prose(text: str) -> str:
    """Without blocks and comments."""
    text = re.sub(r"^ *(`{3,}).*?^ *\1 *$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def links(page: Path) -> list[str]:
    """Targets of links and pictures."""
    text = re.sub(r"`[^`\n]*`", "", prose(page.read_text("utf-8")))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href|srcset)=\"([^\"]+)\"", text)


def inline_commands(page: Path) -> list[str]:
    """Commands within sentences; the generated table is none."""
    written = LIST.sub("", page.read_text("utf-8"))
    return NAMED.findall(" ".join(prose(written).split()))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings, and those of <a id="...">."""
    found: dict[str, int] = {}
    written = prose(page.read_text("utf-8"))
    for heading in re.findall(r"^#+ (.+)$", written, re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return found.keys() | set(re.findall(r'<a id="([^"]+)"', written))


if __name__ == "__main__":
    INDEX.write_text(LIST.sub(lambda _: listed(), INDEX.read_text("utf-8")), "utf-8")
