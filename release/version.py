"""`make version V=1.2.3` writes the version into VERSION and its copies; without V it compares them with VERSION.

Each of the two distributions takes its version from its __init__.py, so that pip can build it alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SYNTAX = r"\d+\.\d+\.\d+(?:-(?:alpha|beta|rc)\.\d+)?"
"""What is a version to Helm, and to Python once normalized."""
COPIES = {
    "operator/sppo_operator/__init__.py": [r'__version__ = "(.+)"'],
    "trainer/sppo_trainer/__init__.py": [r'__version__ = "(.+)"'],
    "manifests/operator/operator.yaml": [r"image: sppo-operator:(\S+)", r"value: sppo-trainer:([^\s}]+)"],
    "manifests/labels/kustomization.yaml": [r"app.kubernetes.io/version: (.+)"],
    "charts/sppo-operator/Chart.yaml": [r"^version: (.+)", r"^appVersion: (.+)"],
}
"""Where the copies are: a pattern for each, whose group is the version."""


def main(root: Path = ROOT) -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    if not wanted:
        compare(root)
    elif not re.fullmatch(SYNTAX, wanted):
        sys.exit(f"error: V is {wanted!r}: give a version such as 1.2.3 or 1.2.3-rc.1")
    else:
        write(root, wanted)


def compare(root: Path) -> None:
    version = (root / "VERSION").read_text("utf-8").strip()
    other = [f"{file} has {found}" for file, found in copies(root) if found != version]
    if other:
        sys.exit(f"error: VERSION has {version}, but {'; '.join(other)}: run make version V={version}")
    print(version)


def copies(root: Path) -> list[tuple[str, str]]:
    """Every copy: its file and what it says."""
    return [
        (file, found.strip("\"'"))
        for file, patterns in COPIES.items()
        for pattern in patterns
        for found in [search(root / file, pattern).group(1)]
    ]


def search(file: Path, pattern: str) -> re.Match[str]:
    found = re.search(pattern, file.read_text("utf-8"), re.MULTILINE)
    if found is None:
        sys.exit(f"error: {file} has no version where {pattern} would find it: mend one of them")
    return found


def write(root: Path, version: str) -> None:
    for file, patterns in COPIES.items():
        path = root / file
        for pattern in patterns:
            match, text = search(path, pattern), path.read_text("utf-8")
            quote = match.group(1)[0] if match.group(1)[0] in "\"'" else ""
            path.write_text(f"{text[: match.start(1)]}{quote}{version}{quote}{text[match.end(1) :]}", "utf-8")
    (root / "VERSION").write_text(f"{version}\n", "utf-8")


if __name__ == "__main__":
    main()
