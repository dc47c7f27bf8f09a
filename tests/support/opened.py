"""A page in a browser, and what it did on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Page


@dataclass
class Opened:
    page: Page
    requests: list[str] = field(default_factory=list)
    refused: dict[str, str | None] = field(default_factory=dict)
    """Requests that failed, and why."""
    messages: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)


Open = Callable[..., Opened]
