"""The pages of the documentation: their blocks of commands, how each is verified, and their links.

`python tests/support/documents.py` writes the table of docs/README.md that lists what no test runs.
CONTRIBUTING.md explains the markers.
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
    """All that users read; only the first three sorts may hold commands without a marker being wrong elsewhere."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "charts").glob("*/README.md"))]


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
    """The table of what no test runs, for docs/README.md."""
    rows = [
        f"| [{page.relative_to(ROOT)}]({link(page)}) | `{command.replace('|', chr(92) + '|')}` | {block.reason} |"
        for page in pages()
        for block in shell_blocks(page, "form")
        for command in block.commands
    ]
    return "\n".join(["| page | command | why not |", "|---|---|---|", *rows]) + "\n"


def link(page: Path) -> str:
    return page.name if page.parent == INDEX.parent else f"../{page.relative_to(ROOT)}"


def prose(page: Path) -> str:
    """The page without blocks, code and comments, line by line."""
    text = re.sub(r"^ *(`{3,}).*?^ *\1 *$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def links(page: Path) -> list[str]:
    """Targets of links and pictures."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href|srcset)=\"([^\"]+)\"", text)


def inline_commands(page: Path) -> list[str]:
    """Commands within sentences: code that starts with the name of a program and says what it is to do."""
    return re.findall(r"`((?:kubectl|helm|make|docker|kind|sppo) [^`]+)`", " ".join(prose(page).split()))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings, and those of <a id="...">."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return found.keys() | set(re.findall(r'<a id="([^"]+)"', prose(page)))


if __name__ == "__main__":
    INDEX.write_text(LIST.sub(lambda _: listed(), INDEX.read_text("utf-8")), "utf-8")
