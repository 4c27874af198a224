"""Running the stages: one boundary for every transport, and the engines that use it."""

from splitlib.pipeline.boundary import Boundary, Traffic
from splitlib.pipeline.engine import Engine
from splitlib.pipeline.inprocess import build_pipeline

__all__ = ["Boundary", "Engine", "Traffic", "build_pipeline"]
