"""This room holds what was decided: one decision, a batch of them, why, and at which tau another candidate takes over."""

from typing import TYPE_CHECKING

from ipr_engine._lazy_names import lazy_names

if TYPE_CHECKING:
    from ipr_engine.decision.explanation import Explanation, check_explainable, explained
else:
    __getattr__ = lazy_names(
        __name__, dict.fromkeys(("Explanation", "check_explainable", "explained"), "ipr_engine.decision.explanation")
    )

__all__ = ["Explanation", "check_explainable", "explained"]
