"""Write a run with another seed, and with the seed in its name: python demo/seeded.py FILE SEED TO"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LARGEST = 2**31 - 1


def seeded(text: str, seed: int) -> str:
    """Edits the text, not the document, so that the file's comments survive; seed 0 is the document's own."""
    if seed == 0:
        return text
    text, seeds = re.subn(r"(?m)^  seed: 0$", f"  seed: {seed}", text)
    text, names = re.subn(r"(?m)^  name: (\S+)$", rf"  name: \1-{seed}", text)
    assert (seeds, names) == (1, 1), "the run has seed 0 and one name, each on a line of its own"
    return text


def main(file: Path, seed: str, to: Path) -> None:
    if not re.fullmatch("[0-9]{1,10}", seed) or int(seed) > LARGEST:
        sys.exit(f'error: SEED is "{seed}": give a whole number from 0 to {LARGEST}')
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(seeded(file.read_text("utf-8"), int(seed)), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
