"""The first section of an evaluation holds the quality that tau promises (docs/tau.md) against the quality that was kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle
from ipr_engine.evaluation.markdown import number, per_1000, table
from ipr_engine.measures.resampling import Resamples, estimate
from ipr_engine.measures.routing import WeightedOutcomes
from ipr_engine.policy.paths import Paths
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.tau_path import TauPath

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

TAUS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
EVERY_TAU = (0.0, *TAUS, 1.0)
Plan = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Kept:
    """A `Kept` holds the quality and cost kept at each tau: figures (1 + draws, taus), row 0 the sample itself.

    Attributes:
        tau: (taus,). quality, cost: mean realised quality and USD of what is routed.
        best, cheapest: (1 + draws,) mean quality of the two single candidates of the promise. dear, cheap: their mean cost.
    """

    tau: Array
    quality: Array
    cost: Array
    best: Array
    cheapest: Array
    dear: Array
    cheap: Array

    @classmethod
    def of(
        cls,
        taus: Sequence[float],
        choices: Indices,
        quality: Array,
        cost: Array,
        *,
        best: int,
        cheapest: int,
        resamples: Resamples,
    ) -> Kept:
        """Measure choices (taus, rows) on realised quality and cost (rows, models)."""
        every, width = np.arange(len(quality)), len(taus)
        # One pass over the resamples for every figure: that is what makes them paired.
        routed = np.stack([quality[every, chosen] for chosen in choices], axis=1)
        paid = np.stack([cost[every, chosen] for chosen in choices], axis=1)
        ends = [best, cheapest]
        means = resamples.means(np.concatenate([routed, paid, quality[:, ends], cost[:, ends]], axis=1))
        return cls(
            np.asarray(taus, np.float64), means[:, :width], means[:, width : 2 * width], *means[:, 2 * width :].T
        )

    @property
    def promised(self) -> Array:
        """The promised quality: (1 - tau) of the way from cheapest to best, on the same prompts."""
        return (1 - self.tau) * self.best[:, None] + self.tau * self.cheapest[:, None]

    @property
    def excess(self) -> Array:
        """The kept minus the promised quality."""
        return self.quality - self.promised

    @property
    def lost(self) -> Array:
        """The share of the way from best to cheapest that was lost; NaN where both are as good."""
        gap = (self.best - self.cheapest)[:, None]
        return np.divide(self.best[:, None] - self.quality, gap, out=np.full_like(self.quality, np.nan), where=gap != 0)

    @property
    def of_best_cost(self) -> Array:
        """The cost as a share of the best single candidate's."""
        return np.divide(
            self.cost, self.dear[:, None], out=np.full_like(self.cost, np.nan), where=self.dear[:, None] > 0
        )

    @property
    def over_line(self) -> Array:
        """The quality above the straight line between the two single candidates at equal cost; beyond its ends, above the end."""
        # Where on the line from the cheapest (0) to the best (1) this cost lies.
        along = np.clip((self.cost - self.cheap[:, None]) / (self.dear - self.cheap)[:, None], 0, 1)
        return self.quality - (self.cheapest[:, None] + along * (self.best - self.cheapest)[:, None])


def promised_figures(
    bundle: Bundle,
    names: Sequence[str],
    policy_at: Callable[[float], Policy],
    decide: Callable[[Plan], Indices],
    outcomes: WeightedOutcomes,
    resamples: Resamples,
) -> dict[str, Any]:
    """Return the section as plain JSON; `reason` says why there is none.

    Args:
        policy_at: what runs at a tau under rule "path", the candidates `names` allowed.
        decide: options of `Engine.decide`, a setting each -> (settings, rows) positions in `names` of what the engine chooses.
        outcomes: of the test split, columns as `names`. resamples: of its rows.
    """
    reason = Paths(bundle).lacking(names)
    if reason is not None:
        return {"reason": reason, "taus": []}
    policies = [policy_at(tau) for tau in EVERY_TAU]
    promise, path = policies[1].promise, policies[1].path  # an inner tau: at 0 and 1 nothing is promised
    assert promise is not None
    assert path is not None
    choices = decide([{"rule": "path", "tau": tau} for tau in EVERY_TAU])
    best, cheapest = names.index(promise.best), names.index(promise.cheapest)
    kept = Kept.of(
        EVERY_TAU,
        choices,
        outcomes.quality,
        outcomes.cost,
        best=best,
        cheapest=cheapest,
        resamples=resamples,
    )
    return {
        "reason": None,
        "best": promise.best,
        "cheapest": promise.cheapest,
        "rows": path.rows,
        "fitted": {
            "best_quality": path.best_quality,
            "cheapest_quality": path.cheapest_quality,
            "standard_error": path.standard_error,
        },
        "taus": [
            {
                "tau": tau,
                "worth": policies[i].worth,
                "note": None if (p := policies[i].promise) is None else p.note,
                "promise": 0 < tau < 1,
                **{
                    key: estimate(figures[:, i]).to_json()
                    for key, figures in (
                        ("promised", kept.promised),
                        ("kept", kept.quality),
                        ("kept_minus_promised", kept.excess),
                        ("lost", kept.lost),
                        ("cost_usd", kept.cost),
                        ("of_best_cost", kept.of_best_cost),
                    )
                },
                "share_of_cheapest": float((choices[i] == cheapest).mean()),
                "candidates_used": len(np.unique(choices[i])),
            }
            for i, tau in enumerate(EVERY_TAU)
        ],
    }


def choices_of_shares(
    path: TauPath, shares: Sequence[float], decide: Callable[[Plan], Indices]
) -> dict[float, Indices]:
    """Return share -> (rows,) what rule `path` chooses at the tau that promises this share of the best single's quality.

    The tau is read on the path's own rows. Nothing where the cheapest single candidate is as good there.
    """
    gap = path.best_quality - path.cheapest_quality
    if gap <= 0:
        return {}
    taus = [min(1.0, (1 - share) * path.best_quality / gap) for share in shares]
    return dict(zip(shares, decide([{"rule": "path", "tau": tau} for tau in taus]), strict=True))


def render_promised(section: Mapping[str, Any], crossed: bool) -> str:
    """Return the section of the report. crossed: it is on a recipe (cross_fit.py), and the bundle may have a path of its own."""
    title = "## tau: promised against kept\n\n"
    if section["reason"] is not None:
        bare = (
            "What a bare tau of the bundle does is not judged here"
            if crossed
            else "A bare tau runs `minmax`, see below"
        )
        return f"{title}No rule `path` here: {section['reason']}. {bare}."
    keys = ("kept_minus_promised", "lost", "of_best_cost")
    rows = [
        [
            f"{t['tau']:g}",
            number(t["promised"]) if t["promise"] else "-",
            number(t["kept"]),
            *(number(t[key], signed=key == keys[0]) if t["promise"] or key != keys[0] else "-" for key in keys),
            number(per_1000(t["cost_usd"])),
            f"{t['share_of_cheapest']:.0%}",
        ]
        for t in section["taus"]
    ]
    head = [
        "tau", "promised quality", "kept", "kept - promised", "share of the way lost", "cost, of the best single's",
        "USD per 1,000", "to the cheapest",
    ]  # fmt: skip
    noted = [f"- tau {t['tau']:g}: {t['note']}" for t in section["taus"] if t["note"] is not None]
    notes = "\n\nWhat the policy says:\n\n" + "\n".join(noted) if noted else ""
    return (
        f"{title}Rule `path`: tau promises that mean quality is (1 - tau) of the way from the cheapest single candidate "
        f"(`{section['cheapest']}`) to the best one (`{section['best']}`), on average over prompts like these. The path is that "
        f"of {section['rows']} fitting prompts; both ends are read on these test prompts. At 0 the highest predicted quality "
        f"runs, at 1 the cheapest on each prompt; neither is promised a level.\n\n{table(head, rows)}\n\n{verdict(section)}{notes}"
    )


def verdict(figures: Mapping[str, Any]) -> str:
    """Say in one sentence at which tau the promise is told apart from what was kept."""
    inner = [line for line in figures["taus"] if line["promise"]]
    below = [f"{t['tau']:g}" for t in _below(figures)]
    above = [f"{t['tau']:g}" for t in inner if (low := t["kept_minus_promised"]["low"]) is not None and low > 0]
    said = [
        f"{word} the promise at tau {', '.join(taus)}" for word, taus in (("below", below), ("above", above)) if taus
    ]
    return f"Told apart: {'; '.join(said)}." if said else "At no tau is what was kept told apart from the promise."


def broken_promises(figures: Mapping[str, Any]) -> list[str]:
    """Return a sentence where a bare tau is shown to have kept less than it promised, for whoever reads no further; else nothing."""
    below = _below(figures)
    if not below:
        return []
    taus = ", ".join(f"{line['tau']:g}" for line in below)
    worst = min(below, key=lambda line: line["kept_minus_promised"]["value"])
    return [
        f"A bare tau (rule `path`) kept less than it promised at tau {taus}: at tau "
        f"{worst['tau']:g} a mean quality of {number(worst['kept'])}, where {number(worst['promised'])} was promised."
    ]


def _below(figures: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    inner = [line for line in figures["taus"] if line["promise"]]
    return [line for line in inner if (high := line["kept_minus_promised"]["high"]) is not None and high < 0]
