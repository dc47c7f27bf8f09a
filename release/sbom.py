"""A software bill of materials (CycloneDX 1.6, JSON) of the image that this runs in, on standard output.

    docker run --rm -i --network=none --entrypoint python IMAGE - NAME VERSION < release/sbom.py

It lists the Debian packages, the Python packages wherever they lie, and the interpreter, but not the C libraries inside
wheels. It uses the standard library alone, and the same image gives the same bytes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]
NOT_FILES = ("proc", "sys", "dev")


def main() -> None:
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python sbom.py NAME VERSION [ROOT]")
    name, version, *root = sys.argv[1:]
    json.dump(bill(name, version, Path(*root) if root else Path("/")), sys.stdout, indent=1, sort_keys=True)
    print()


def bill(name: str, version: str, root: Path) -> dict[str, Any]:
    components = [interpreter(), *debian_packages(root), *python_packages(root)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "name": name, "version": version, "bom-ref": f"{name}@{version}"}
        },
        "components": sorted(components, key=lambda component: component["bom-ref"]),
    }


def interpreter() -> Component:
    return component("pkg:generic", "python", platform.python_version(), "application")


def debian_packages(root: Path) -> Iterator[Component]:
    """Of dpkg's database, or of the one file per package that images without dpkg have."""
    database = [root / "var/lib/dpkg/status", *sorted((root / "var/lib/dpkg/status.d").glob("*[!s]"))]
    paragraphs = [
        paragraph
        for file in database
        if file.is_file()
        for paragraph in file.read_text("utf-8", "replace").split("\n\n")
        if paragraph.strip()
    ]
    if not paragraphs:
        sys.exit(
            f"error: {database[0]} names no Debian package, so the bill would lack them: use a base image that has it"
        )
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (root / "etc/os-release").read_text("utf-8"), re.MULTILINE))
    for paragraph in paragraphs:
        fields: dict[str, str] = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "install ok installed").endswith(" installed"):
            source = fields.get("Source", fields["Package"]).replace(" (", "@").rstrip(")")
            qualifiers = {"arch": fields["Architecture"], "distro": f"{release['ID']}-{release.get('VERSION_ID', '')}"}
            qualifiers |= {"upstream": source} if source != fields["Package"] else {}
            yield component(f"pkg:deb/{release['ID']}", fields["Package"], fields["Version"], **qualifiers)


def python_packages(root: Path) -> Iterator[Component]:
    found: dict[str, Component] = {}
    for folder, folders, _ in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in NOT_FILES]
        for name in folders:
            if name.endswith((".dist-info", ".egg-info")):
                described = Distribution.at(Path(folder, name)).metadata
                package = component("pkg:pypi", normalized(described["Name"]), described["Version"])
                if "License-Expression" in described:
                    package["licenses"] = [{"expression": described["License-Expression"]}]
                found[package["bom-ref"]] = package
    yield from found.values()


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def component(scheme: str, name: str, version: str, kind: str = "library", **qualifiers: str) -> Component:
    query = "&".join(f"{key}={encoded(value)}" for key, value in sorted(qualifiers.items()))
    purl = f"{scheme}/{encoded(name)}@{encoded(version)}{'?' + query if query else ''}"
    return {"type": kind, "name": name, "version": version, "purl": purl, "bom-ref": purl}


def encoded(text: str) -> str:
    """As the package URL specification asks, which spares the colon."""
    return quote(text, safe=":")


if __name__ == "__main__":
    main()
