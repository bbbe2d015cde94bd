"""Serving: an engine under many callers at once, from asyncio tasks and from threads (docs/operations.md)."""

from ipr_engine.serving.async_engine import AsyncEngine
from ipr_engine.serving.batching_engine import BatchingEngine
from ipr_engine.serving.counters import Counters
from ipr_engine.serving.limits import Limits
from ipr_engine.serving.prometheus import prometheus_text

__all__ = ["AsyncEngine", "BatchingEngine", "Counters", "Limits", "prometheus_text"]
