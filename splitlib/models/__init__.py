"""The models the documents train, built unsplit; :mod:`splitlib.partition` cuts them."""

from splitlib.models.build import build_model

__all__ = ["build_model"]
