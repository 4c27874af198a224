"""Running the three stages: one boundary for every transport, and the engines that use it."""

from splitlib.pipeline.boundary import Boundary, Traffic
from splitlib.pipeline.inprocess import build_pipeline

__all__ = ["Boundary", "Traffic", "build_pipeline"]
