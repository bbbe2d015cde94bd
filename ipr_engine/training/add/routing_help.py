"""`RoutingHelp` says whether routing gains by a new candidate: the same prompts routed with it and without, paired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ipr_engine.measures.curve_figures import whether_more_help
from ipr_engine.measures.resampling import Estimate
from ipr_engine.measures.routing import SHARE


@dataclass(frozen=True)
class RoutingHelp:
    """A `RoutingHelp` holds what routing costs and gains with a candidate and without.

    Figures are pairs: the cost of `SHARE` of the quality of the best other candidate, as a share of what that one costs, and the area
    between the cheapest and the best of the others.

    Attributes:
        candidate, best: the new one's name and that of the best other. prompts: judged on.
        without, beside: the figures without the candidate and with it. gain: with it minus without, paired.
        doubling: by how much `gain` changed from half of the candidate's answers to all; empty where these are too few.
        why_not: why nothing is told; None where the figures are there, and else they are empty.
    """

    candidate: str
    prompts: int
    best: str = ""
    without: tuple[Estimate, ...] = ()
    beside: tuple[Estimate, ...] = ()
    gain: tuple[Estimate, ...] = ()
    doubling: tuple[Estimate, ...] = ()
    why_not: str | None = None

    @property
    def verdict(self) -> str:
        """Return "helps", "harms" or "not told": what the intervals of `gain` tell; where cost and area disagree, nothing."""
        if not self.gain:
            return "not told"
        cost, area = self.gain
        helps, harms = cost.high < 0 or area.low > 0, cost.low > 0 or area.high < 0
        return "helps" if helps and not harms else "harms" if harms and not helps else "not told"

    def says(self) -> list[str]:
        """Return the figures and the advice, in sentences."""
        name = self.candidate
        if self.why_not is not None:
            return [f"whether {name} helps routing is not told: {self.why_not}"]
        (cost_without, area_without), (cost, area), (less, more) = self.without, self.beside, self.gain
        figures = (
            f"{SHARE:.0%} of {self.best}'s quality costs {cost_without.shown(percent=True)} of always asking {self.best} without {name}, "
            f"{cost.shown(percent=True)} with it, a difference of {less.shown('+', percent=True)}; area {area_without.shown()} without, "
            f"{area.shown()} with it, {more.shown('+')} ({self.prompts} prompts)"
        )
        advice = {
            "helps": f"{name} helps routing",
            "harms": f"{name} harms routing: leave it out of `allowed`, or take it out of the bundle (`ipr remove-model`)",
            "not told": f"that {name} helps routing is not told apart from chance: leave it out of `allowed` until more answers tell",
        }
        return [figures, f"{advice[self.verdict]}; {self._answers()}"]

    def _answers(self) -> str:
        """Say whether more answers would help."""
        if not self.doubling:
            return "whether more answers would help cannot be told from so few"
        cost, area = self.doubling
        return f"twice the answers moved the area by {area.shown('+')}: {whether_more_help('answers', cost, area)}"

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""

        def pair(figures: tuple[Estimate, ...]) -> dict[str, Any] | None:
            return dict(zip(("cost", "area"), (one.to_json() for one in figures), strict=True)) if figures else None

        return {
            "prompts": self.prompts,
            "share": SHARE,
            "best": self.best or None,
            "without": pair(self.without),
            "with": pair(self.beside),
            "gain": pair(self.gain),
            "doubling": pair(self.doubling),
            "verdict": self.verdict,
            "why_not": self.why_not,
        }
