"""What the stand-in's stages left, as the document of the real trainer; hangs while the notes have a file `hang`."""

import argparse
import json
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--digest", required=True)
parser.add_argument("--samples", type=int)
options = parser.parse_args()
while (options.folder / "standin/hang").exists():
    time.sleep(0.1)
document: dict = {"results": 1, "made": {}, "curves": {}, "every": {}, "samples": {}, "damaged": []}
for path in sorted(options.folder.rglob("manifest.json")):
    stage, manifest = path.parent, json.loads(path.read_text())
    document["made"][str(stage.relative_to(options.folder))] = {
        "result": manifest["result"],
        "contentDigest": manifest["contentDigest"],
        "provenance": {"host": "stand-in"},
    }
    for file in manifest["files"]:
        number = stage.parent.name.removeprefix("i")
        data = json.loads((stage / file["path"]).read_text())
        if file["name"] == "curves.json":
            document["curves"][number] = data
        elif number == str(options.samples):
            document["samples"][number] = data
print(json.dumps(document), flush=True)
try:
    (options.folder / "written").write_text("")
    sys.exit("the claim can be written")
except OSError:
    sys.exit(0)
