"""Posts Kubernetes Events about runs. An Event that cannot be posted is logged and forgotten: the status has it all."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sppo_operator.api import Api
from sppo_operator.errors import ApiError
from sppo_operator.events import Event
from sppo_operator.facts import timestamp
from sppo_operator.resources import events

COMPONENT = "sppo-operator"
log = logging.getLogger(__name__)


class Recorder:
    def __init__(self, api: Api, identity: str) -> None:
        self._api = api
        self._identity = identity

    async def tell(self, resource: Mapping[str, Any], news: Iterable[Event]) -> None:
        namespace = resource["metadata"]["namespace"]
        for event in news:
            try:
                await self._api.create(events(namespace), self._manifest(resource, event))
            except ApiError as error:
                log.warning("an Event about %s was not posted: %s", resource["metadata"]["name"], error)

    def _manifest(self, resource: Mapping[str, Any], event: Event) -> dict[str, Any]:
        metadata = resource["metadata"]
        now = timestamp(datetime.now(UTC))
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": metadata["namespace"], "name": f"{metadata['name']}.{secrets.token_hex(8)}"},
            "involvedObject": {
                "apiVersion": resource["apiVersion"],
                "kind": resource["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._identity,
        }
