"""What the kubelet makes of a container's env: a stand-in for the node, in the words of the original.

`expand` follows Kubernetes' third_party/forked/golang/expansion/expand.go line by line, `environment` follows
makeEnvironmentVariables of pkg/kubelet/kubelet_pods.go for the sources that our pods use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

OPERATOR, OPENER, CLOSER = "$", "(", ")"


def expand(text: str, mapping: Callable[[str], str]) -> str:
    written: list[str] = []
    checkpoint = cursor = 0
    while cursor < len(text):
        if text[cursor] == OPERATOR and cursor + 1 < len(text):
            written.append(text[checkpoint:cursor])
            read, is_variable, advance = _read_variable_name(text, cursor + 1)
            written.append(mapping(read) if is_variable else read)
            cursor += advance
            checkpoint = cursor + 1
        cursor += 1
    return "".join(written) + text[checkpoint:]


def _read_variable_name(text: str, start: int) -> tuple[str, bool, int]:
    """What was read from `start` on, whether it is a variable's name, and how many characters it took."""
    if text[start] == OPERATOR:
        return OPERATOR, False, 1
    if text[start] == OPENER:
        end = text.find(CLOSER, start + 1)
        return (OPERATOR + OPENER, False, 1) if end < 0 else (text[start + 1 : end], True, end - start + 1)
    return OPERATOR + text[start], False, 1


def environment(
    pod: Mapping[str, Any], *, index: int = 0, cores: int = 4, secrets: Mapping[tuple[str, str], str] | None = None
) -> dict[str, str]:
    """The variables that the one container of a pod is started with, as worker `index` of an Indexed Job.

    `cores` is the limit of the container or the node's allocatable; `secrets` maps (name, key) to values.
    """
    container = pod["containers"][0]
    services = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    result: dict[str, str] = {}

    def mapping(name: str) -> str:
        known = result if name in result else services
        return known.get(name, f"{OPERATOR}{OPENER}{name}{CLOSER}")

    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "resourceFieldRef" in source:
            assert source["resourceFieldRef"] == {"containerName": container["name"], "resource": "limits.cpu"}
            result[variable["name"]] = str(cores)
        elif "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            result[variable["name"]] = (secrets or {})[reference["name"], reference["key"]]
        else:
            result[variable["name"]] = expand(variable.get("value", ""), mapping)
    # The Job controller appends it to the env of the pods that it makes.
    return services | result | {"JOB_COMPLETION_INDEX": str(index)}
