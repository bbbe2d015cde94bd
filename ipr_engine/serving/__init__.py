"""This room serves an engine to many callers at once, asyncio tasks and threads (docs/operations.md)."""

from ipr_engine.serving.exposition import prometheus_text
from ipr_engine.serving.faces import AsyncEngine, BatchingEngine
from ipr_engine.serving.metrics import Counters
from ipr_engine.serving.queueing import Limits
from ipr_engine.serving.recorders import AsyncRecorder, BatchingRecorder

__all__ = [
    "AsyncEngine",
    "AsyncRecorder",
    "BatchingEngine",
    "BatchingRecorder",
    "Counters",
    "Limits",
    "prometheus_text",
]
