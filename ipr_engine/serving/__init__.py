"""This room serves an engine to many callers at once, asyncio tasks and threads (docs/operations.md)."""

from ipr_engine.serving.faces import AsyncEngine, BatchingEngine
from ipr_engine.serving.metrics import Counters, prometheus_text
from ipr_engine.serving.queueing import Limits

__all__ = ["AsyncEngine", "BatchingEngine", "Counters", "Limits", "prometheus_text"]
