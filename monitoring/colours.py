"""Colours, by what they stand for."""

from __future__ import annotations

GREEN, BLUE, ORANGE, RED, GREY, PURPLE = "green", "blue", "orange", "red", "#808080", "purple"

PHASES = {
    "New": GREY,
    "Waiting": GREY,
    "Queued": ORANGE,
    "Suspended": PURPLE,
    "Preparing": BLUE,
    "Generating": BLUE,
    "Scoring": BLUE,
    "Training": BLUE,
    "Evaluating": BLUE,
    "Succeeded": GREEN,
    "Failed": RED,
}
STATE_COLOURS = {
    "Pending": GREY,
    "Queued": ORANGE,
    "Suspended": PURPLE,
    "Running": BLUE,
    "Succeeded": GREEN,
    "GivenUp": ORANGE,
    "Failed": RED,
}
