"""Print a run with another seed, and with the seed in its name: python demo/seeded.py FILE SEED"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def seeded(text: str, seed: int) -> str:
    """Edits the text, not the document, so that the file's comments survive."""
    text, seeds = re.subn(r"(?m)^  seed: \d+", f"  seed: {seed}", text)
    text, names = re.subn(r"(?m)^  name: (\S+)$", rf"  name: \1-{seed}", text)
    assert (seeds, names) == (1, 1), "the run has one seed and one name, each on a line of its own"
    return text


if __name__ == "__main__":
    sys.stdout.write(seeded(Path(sys.argv[1]).read_text("utf-8"), int(sys.argv[2])))
