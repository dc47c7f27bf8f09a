"""The commands of `sppo` and `kubectl sppo`, and what they show."""
