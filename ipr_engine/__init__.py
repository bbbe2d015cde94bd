"""Intelligent Prompt Routing (arXiv 2509.06274) decides in microseconds which LLM should answer a prompt.

engine = ipr_engine.Engine.load()
decision = engine.route("Explain quicksort", tau=0.1)
decision.model, decision.quality, decision.cost_usd, decision.cause
"""

import os as _os
from typing import TYPE_CHECKING

from ipr_engine.bundle import Bundle, Price
from ipr_engine.decision.decision import Decision
from ipr_engine.decision.decisions import Decisions
from ipr_engine.engine import Engine
from ipr_engine.errors import (
    BackendUnavailableError,
    BundleError,
    InvalidInputError,
    IprError,
    RowError,
)
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import parse_request

if TYPE_CHECKING:
    from ipr_engine.serving import AsyncEngine

__version__ = "0.1.0"

# A wheel holds kernels/ and benchmarks/; in a clone they stand beside this folder.
_HERE = _os.path.dirname(_os.path.abspath(__file__))
if not _os.path.isdir(_os.path.join(_HERE, "kernels")):
    __path__.append(_os.path.dirname(_HERE))

__all__ = [
    "AsyncEngine",
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "Decision",
    "Decisions",
    "Engine",
    "InvalidInputError",
    "IprError",
    "Policy",
    "Price",
    "RowError",
    "parse_request",
]


def __getattr__(name: str) -> object:
    """Import AsyncEngine when it is first asked for: asyncio takes longer to import than all else here."""
    if name == "AsyncEngine":
        from ipr_engine.serving import AsyncEngine

        return AsyncEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
