"""The version, in one place: pyproject.toml reads it here, records note it."""

__version__ = "0.1.0"
