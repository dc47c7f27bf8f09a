"""The stages of Self-Play Preference Optimization: prepare, generate, score, train, evaluate."""

__version__ = "0.1.0"
