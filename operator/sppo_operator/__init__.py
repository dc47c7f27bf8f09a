"""The SPPORun resource: validation, decisions, and the executors that carry them out."""

__version__ = "0.1.0"
