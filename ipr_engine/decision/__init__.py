"""This room holds what was decided: one decision, a batch of them, why, and at which tau another candidate takes over."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipr_engine.decision.explanation import Explanation

__all__ = ["Explanation"]


def __getattr__(name: str) -> object:
    """Load explanations when one is first asked for: the engine names them in its signatures, and imports should be quick."""
    if name != "Explanation":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ipr_engine.decision.explanation import Explanation

    return Explanation
