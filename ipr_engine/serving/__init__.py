"""Serving: an engine under many callers at once, from asyncio tasks and from threads (docs/operations.md)."""

from ipr_engine.serving.async_engine import AsyncEngine
from ipr_engine.serving.batching_engine import BatchingEngine
from ipr_engine.serving.metrics import Counters, prometheus_text
from ipr_engine.serving.queue_limits import Limits

__all__ = ["AsyncEngine", "BatchingEngine", "Counters", "Limits", "prometheus_text"]
