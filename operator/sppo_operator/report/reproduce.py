"""The report's last section: the manifest, what it ran on, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sppo_operator import __version__
from sppo_operator.decide import Stage, Step
from sppo_operator.facts import Record, Records, in_order
from sppo_operator.report.markup import copyable, folded, paragraph, table
from sppo_operator.store import yaml_of

REVISION = "Revision"
"""How the names of prepare's figures end that hold the commit of a source."""
COMMANDS = """\
# Save the manifest below as {name}.yaml{image}
sppo validate {name}.yaml
sppo run {name}.yaml --workspace DIR                 # on this machine
kubectl apply -f {name}.yaml                         # or on a cluster
# Then compare the content digests:
grep contentDigest DIR/run.yaml
kubectl get spporun {name} -n {namespace} -o yaml | grep contentDigest"""


def reproduce(resource: Mapping[str, Any], records: Records, provenance: Mapping[Step, Mapping[str, Any]]) -> str:
    metadata, status = resource["metadata"], resource.get("status", {})
    namespace = metadata.get("namespace", "default")
    image = resource["spec"].get("image") or status.get("image", "")
    pin = f", with spec.image: {image}" if image and "image" not in resource["spec"] else ""
    commands = COMMANDS.format(name=metadata["name"], namespace=namespace, image=pin)
    return (
        paragraph("Equal digests are promised on the same machine type, packages, threads and number of processes.")
        + copyable(commands, "Commands")
        + "<h3>Manifest</h3>"
        + copyable(manifest(resource), "Manifest")
        + _versions(status, records, provenance)
        + folded("Content digest of every stage", _digests(status, records))
    )


def manifest(resource: Mapping[str, Any]) -> str:
    """The run without what the cluster added, as YAML that kubectl reads as it was meant."""
    metadata = {key: resource["metadata"][key] for key in ("name", "namespace") if key in resource["metadata"]}
    return yaml_of(
        {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "metadata": metadata,
            "spec": resource["spec"],
        }
    )


def _versions(status: Mapping[str, Any], records: Records, provenance: Mapping[Step, Mapping[str, Any]]) -> str:
    images = dict.fromkeys(attempt.image for step in in_order(records) for attempt in records[step].newest)
    rows = [("sppo-operator", __version__)]
    rows += [("trainer image", image) for image in (images or {status.get("image", ""): None}) if image]
    prepared = records.get(Step(0, Stage.PREPARE), Record()).metrics
    rows += [
        (f"commit of {name.removesuffix(REVISION)}", str(commit))
        for name, commit in prepared.items()
        if name.endswith(REVISION)
    ]
    rows += [(name, " / ".join(values)) for name, values in _facts(provenance).items()]
    return table(("what", "version"), rows, caption="What it ran on", wordy=True)


def _facts(provenance: Mapping[Step, Mapping[str, Any]]) -> dict[str, list[str]]:
    """What the attempts noted about themselves, each value once, in the order of the stages."""
    found: dict[str, dict[str, None]] = {}
    for notes in provenance.values():
        packages = notes.get("packages")
        flat = {key: value for key, value in notes.items() if key not in ("packages", "started", "seconds")}
        for key, value in (flat | (packages if isinstance(packages, dict) else {})).items():
            if value not in (None, ""):
                found.setdefault(str(key), {})[str(value)] = None
    return {key: list(values) for key, values in found.items()}


def _digests(status: Mapping[str, Any], records: Records) -> str:
    rows = [("run (immutable fields)", status.get("digest", ""))]
    rows += [(str(step), records[step].content_digest) for step in in_order(records)]
    return table(("stage", "digest"), [row for row in rows if row[1]], caption="SHA-256", wordy=True)
