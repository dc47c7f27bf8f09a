"""Draws docs/report.png: the top of the report of a finished run.

PYTHONPATH=tests/support python tests/browser/picture.py WORKSPACE docs/report.png
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from conftest import ARGUMENTS, CHROMIUM
from playwright.sync_api import sync_playwright

WINDOW = {"width": 1280, "height": 1390}


def main(workspace: str, picture: str) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder, "report.html")
        command = [sys.executable, "-m", "sppo_operator", "report", workspace, "--output", str(report)]
        subprocess.run(command, check=True)
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = chromium.new_page(viewport=WINDOW)
        page.goto(report.as_uri())
        page.screenshot(path=picture)
        chromium.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
