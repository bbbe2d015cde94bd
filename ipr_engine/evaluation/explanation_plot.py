"""`draw_explanation` draws one decision: a line a candidate with its quality, what was realised there, and its cost."""

from __future__ import annotations

from pathlib import Path

from ipr_engine._extras import need_pyplot
from ipr_engine._files import writable_file
from ipr_engine.decision.explanation import Explanation
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.plot_style import BLACK, BLUE, GREY, ORANGE, RED, STYLE

STATES = {  # state -> colour, marker, label
    "chosen": (RED, "*", "chosen"),
    "feasible": (BLUE, "o", "reaches the threshold"),
    "below": (ORANGE, "v", "below the threshold"),
    "away": (GREY, "x", "not allowed"),
}


def draw_explanation(explanation: Explanation, path: Path) -> Path:
    """Write a PNG, candidates by expected cost, and return its path.

    Raises:
        InvalidInputError: the path does not end in .png or cannot be written.
        BackendUnavailableError: the extra [eval] is missing.
    """
    writable_file(path, "plot", suffix=".png")
    pyplot = need_pyplot()
    decision = explanation.decision
    views = sorted(explanation.candidates, key=lambda view: view.cost_usd)
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(10, 1.9 + 0.42 * len(views)))
        for line, view in enumerate(views):
            kind = "chosen" if view.chosen else "away" if not view.allowed else "feasible" if view.feasible else "below"
            colour, marker, _ = STATES[kind]
            found = explanation.realised.get(view.name)
            if found is not None:
                axes.plot([found.low, found.high], [line, line], color=colour, alpha=0.4, lw=5, solid_capstyle="butt")
                axes.plot([found.mean], [line], color=colour, marker="|", ms=13, mew=2)
            size = 16 if kind == "chosen" else 9
            axes.plot([view.quality], [line], ls="", color=colour, marker=marker, ms=size, mec="white", zorder=5)
            if kind == "away":
                axes.plot([view.quality], [line], ls="", color=colour, marker=marker, ms=8, mew=2, zorder=5)
        if decision.model is not None and decision.threshold > 0:  # under rule `path` there is none but at tau 0
            label = f"threshold {decision.threshold:.3f}"
            axes.axvline(decision.threshold, color=BLACK, lw=1.2, ls="--", label=label, zorder=1)
        # Empty lines for the legend, so that it names every state, seen here or not.
        for colour, marker, label in STATES.values():
            axes.plot([], [], ls="", color=colour, marker=marker, ms=8, label=label)
        if explanation.realised:
            axes.plot([], [], color=GREY, lw=4, alpha=0.5, label="realised, 95 % interval")
        priors = explanation.priors
        axes.set_yticks(
            range(len(views)),
            [f"{view.name}{' (prior)' if view.name in priors else ''}  {1000 * view.cost_usd:.3f}" for view in views],
        )
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_ylabel("candidate, expected USD per 1,000 such prompts")
        axes.set_xlabel("predicted quality, and realised quality of prompts predicted about as high")
        policy = decision.policy
        axes.set_title(f"{decision.model or decision.status}: rule {policy.rule}, tau {policy.tau:g}", fontsize=13)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=10)
        try:
            # Without the version of matplotlib in it, the same decision gives the same bytes.
            figure.savefig(path, metadata={"Software": None}, bbox_inches="tight")
        except OSError as error:
            raise InvalidInputError(f"plot: cannot write {path}: {error.strerror}") from None
        finally:
            pyplot.close(figure)
    return path
