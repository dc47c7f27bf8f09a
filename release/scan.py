"""`make scan`: look up known vulnerabilities of the locked requirements with pip-audit.

    python release/scan.py LOCK...

Exit status: 0 every package was looked up and none has any; 1 some have; 2 some or all could not be looked up, which
pip-audit itself calls "no known vulnerabilities found".
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

AUDIT = [str(Path(sys.executable).with_name("pip-audit")), "--format=json", "--progress-spinner=off"]


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python release/scan.py LOCK...")
    status = 0
    for lock in sys.argv[1:]:
        packages = audited(lock)
        skipped = [package for package in packages if "skip_reason" in package]
        faulty = [package for package in packages if package.get("vulns")]
        for package in faulty:
            for fault in package["vulns"]:
                known = " ".join([fault["id"], *fault.get("aliases", ())])
                mended = " or ".join(fault["fix_versions"]) or "no release"
                print(f"{lock}: {package['name']} {package['version']}: {known}, mended in {mended}")
        print(f"{lock}: {len(packages) - len(skipped)} of {len(packages)} packages looked up, {len(faulty)} vulnerable")
        if skipped:
            names = ", ".join(package["name"] for package in skipped)
            print(f"{lock}: NOT JUDGED: {names}; the first: {skipped[0]['skip_reason']}", file=sys.stderr)
        status = 1 if faulty or status == 1 else 2 if skipped or status == 2 else 0
    sys.exit(status)


def audited(lock: str) -> list[dict[str, Any]]:
    """What pip-audit says of each package of the lock, which lists all of them, so nothing is resolved."""
    command = [*AUDIT, "--disable-pip", "--require-hashes", f"--requirement={lock}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  the locks are arguments of ours
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        print(f"error: {lock} could not be audited: {done.stderr.strip()}", file=sys.stderr)
        sys.exit(2)
    if not packages:
        print(f"error: {lock} names no package: give a lock such as requirements/operator.txt", file=sys.stderr)
        sys.exit(2)
    return packages


if __name__ == "__main__":
    main()
