"""Intelligent Prompt Routing (arXiv 2509.06274) decides in microseconds which LLM should answer a prompt.

engine = ipr_engine.Engine.load()
decision = engine.route("Explain quicksort", tau=0.1)
decision.model, decision.quality, decision.cost_usd, decision.cause
"""

import sys as _sys
from os import path as _path

from ipr_engine._lazy_names import lazy_names as _lazy_names
from ipr_engine.errors import (
    BackendUnavailableError,
    BundleError,
    InvalidInputError,
    IprError,
    RowError,
)

__version__ = "0.1.0"

if not _path.isfile(_path.join(_path.dirname(__file__), "kernels", "__init__.py")):  # a clone, not a wheel
    from ipr_engine._clone import KernelsBeside as _KernelsBeside

    _sys.meta_path.insert(0, _KernelsBeside)  # before the finder of another clone that is installed

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

TYPE_CHECKING = False  # as mypy and pyright know the name; `typing` takes longer to import than all else here
if TYPE_CHECKING:
    from ipr_engine.bundle import Bundle, Price
    from ipr_engine.decision.decision import Decision
    from ipr_engine.decision.decisions import Decisions
    from ipr_engine.engine import Engine
    from ipr_engine.policy.policy import Policy
    from ipr_engine.prompts import parse_request
    from ipr_engine.serving import AsyncEngine
else:
    __getattr__ = _lazy_names(
        __name__,
        {
            "AsyncEngine": "ipr_engine.serving",
            "Bundle": "ipr_engine.bundle",
            "Decision": "ipr_engine.decision.decision",
            "Decisions": "ipr_engine.decision.decisions",
            "Engine": "ipr_engine.engine",
            "Policy": "ipr_engine.policy.policy",
            "Price": "ipr_engine.bundle",
            "parse_request": "ipr_engine.prompts",
        },
    )

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
