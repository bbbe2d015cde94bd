"""One decision as a picture: every candidate's quality over its cost, who was feasible, and what was realised."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.evaluation.plots import BLACK, BLUE, GREY, ORANGE, RED, STYLE, place_names
from ipr_engine.explanation import Explanation

STATES = {  # state -> colour, marker, label
    "chosen": (RED, "*", "chosen"),
    "feasible": (BLUE, "o", "reaches the threshold"),
    "below": (ORANGE, "v", "below the threshold"),
    "away": (GREY, "x", "not allowed"),
}


def draw_explanation(explanation: Explanation, path: Path) -> Path:
    """Write a PNG and return its path.

    Raises:
        InvalidInputError: the path does not end in .png or cannot be written.
        BackendUnavailableError: the extra [eval] is missing.
    """
    if path.suffix.lower() != ".png":
        raise InvalidInputError(f"plot: expected a path that ends in .png, got {path}")
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise BackendUnavailableError(f"plots need matplotlib: pip install 'ipr_engine[eval]' ({error})") from error
    decision = explanation.decision
    with pyplot.rc_context(STYLE):
        figure, ax = pyplot.subplots(figsize=(9, 5.5))
        for view in explanation.candidates:
            kind = "chosen" if view.chosen else "away" if not view.allowed else "feasible" if view.feasible else "below"
            colour, marker, _ = STATES[kind]
            cost = 1000 * view.cost_usd
            found = explanation.realised.get(view.name)
            if found is not None:
                ax.plot([cost, cost], [found.low, found.high], color=colour, alpha=0.45, lw=2)
                ax.plot([cost], [found.mean], color=colour, alpha=0.6, marker="_", ms=11, mew=2)
            ax.plot(
                [cost], [view.quality], ls="", color=colour, marker=marker, ms=15 if kind == "chosen" else 8, zorder=5
            )
        if decision.model is not None:
            ax.axhline(decision.threshold, color=BLACK, lw=1.2, ls="--", label=f"threshold {decision.threshold:.3f}")
        if all(view.cost_usd > 0 for view in explanation.candidates):
            ax.set_xscale("log")
        for colour, marker, label in STATES.values():
            ax.plot([], [], ls="", color=colour, marker=marker, ms=8, label=label)
        if explanation.realised:
            ax.plot([], [], color=GREY, lw=2, marker="_", ms=11, mew=2, label="realised in its bin, 95 % interval")
        ax.set_xlabel("expected cost, USD per 1,000 such prompts")
        ax.set_ylabel("predicted quality")
        policy = decision.policy
        ax.set_title(f"{decision.model or decision.status}, rule {policy.rule}, tau {policy.tau:g}", fontsize=13)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=10)
        costs = np.array([1000 * view.cost_usd for view in explanation.candidates])
        qualities = np.array([view.quality for view in explanation.candidates])
        place_names(figure, ax, costs, qualities, [view.name for view in explanation.candidates])
        try:
            figure.savefig(path, metadata={"Software": None}, bbox_inches="tight")
        except OSError as error:
            raise InvalidInputError(f"plot: cannot write {path}: {error.strerror}") from None
        finally:
            pyplot.close(figure)
    return path
