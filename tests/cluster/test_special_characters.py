"""Text comes from the manifest to the stage as it is, through YAML, JSON, the API server and the kubelet's expansion."""

from __future__ import annotations

import json

from lab import Lab, condition
from namespaces import Namespace
from sppo_operator.decide import schedule
from sppo_operator.render import stage_config
from sppo_operator.spec import Run
from standin_notes import Notes
from standin_runs import standin

EVERYTHING = "$ $$ $$$ $(HOME) $$(HOME) $(nothing $( ${HOME} `id` \\ \\n \\\\ \" ' {phrase} <b> & %s 简短回答。🏆 \u2028 e\u0301 \t\n end"
PATTERN = r"^\$\$?(HOME)\b[\"'\\]*简短$"
SPEC = {
    "model": {"systemPrompt": EVERYTHING},
    "preference": {
        "kind": "Judge",
        "verifier": None,
        "judge": {"endpoint": "http://judge.example/v1", "model": "judge", "rubric": EVERYTHING},
    },
    "evaluation": {"preference": {"kind": "Verifier", "verifier": {"rules": [{"kind": "Regex", "pattern": PATTERN}]}}},
}


def test_every_stage_reads_the_configuration_that_was_rendered(lab: Lab, namespace: Namespace) -> None:
    namespace.apply(standin(**SPEC))
    resource = lab.until_over(namespace.name, "demo", seconds=180)
    assert condition(resource, "Succeeded")["status"] == "True"
    starts = Notes(namespace.folder("demo")).starts()
    for step in schedule(1):
        (start,) = starts[str(step)]
        assert start["SPPO_CONFIG"] == stage_config(Run.of(resource), step, "/workspace", workers=1)
    assert json.loads(starts["prepare"][0]["SPPO_CONFIG"])["model"]["systemPrompt"] == EVERYTHING
    assert json.loads(starts["score 1"][0]["SPPO_CONFIG"])["preference"]["judge"]["rubric"] == EVERYTHING
    (rule,) = json.loads(starts["evaluate 1"][0]["SPPO_CONFIG"])["evaluation"]["preference"]["verifier"]["rules"]
    assert rule["pattern"] == PATTERN
