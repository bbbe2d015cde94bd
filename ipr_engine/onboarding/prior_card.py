"""An `OfflineRouter` is what came of a prior; `prior_card` writes the bundle's model card of it, and `prior_sentences` tell it in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipr_engine.onboarding.offline_models import OfflineModels
from ipr_engine.onboarding.public_models import PublicModels
from ipr_engine.training.add.candidate_prior import REQUEST

CARD = "MODEL_CARD.md"
TYPICAL = int(REQUEST[0])  # input tokens of the request that figures are of, where no prompts are given
CLAIM = "Nothing of this was measured on your traffic"
STUDIED = (
    "On four public sources that its scores leave out, such a prior was ahead of going by price alone on three, below a mix of single "
    "models picked by outcomes on three, and level with that mix on one (docs/studies/prior.md)."
)


@dataclass(frozen=True, kw_only=True)
class PriorCandidate:
    """A `PriorCandidate` is what the bundle takes of one candidate.

    Attributes:
        from_model: whose public scores they are. like: whether the file names that model in place of the candidate.
        scores: source -> mean and prompts there.
        quality: over the sources, each counting alike; low, high: the ends of its 95 % interval.
        lowered: whether it stands below `from_model`, being cheaper.
        output_tokens: of an answer. cost_usd: mean expected cost of a request. share: of the requests that it answers.
        alike: candidates that public scores do not tell it apart from.
    """

    name: str
    from_model: str
    like: bool
    scores: Mapping[str, Mapping[str, float]]
    quality: float
    low: float
    high: float
    lowered: bool
    output_tokens: float
    cost_usd: float
    share: float
    alike: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class OfflineRouter:
    """An `OfflineRouter` says what came of `offline_router`.

    Attributes:
        bundle: its folder. tau, rule: of the figures, and of the line that serves. prompts: that the figures are of; 0: of a request
            of `TYPICAL` input tokens. measured: always False: nothing of it was, on anybody's traffic.
        sources: of the scores. prices_date: of the list prices.
        of_best_cost: cost over that of the candidate of the highest quality.
    """

    bundle: Path
    tau: float
    rule: str
    prompts: int
    candidates: Sequence[PriorCandidate]
    sources: Sequence[str]
    prices_date: str
    of_best_cost: float | None
    measured: bool = False


def prior_card(
    models: OfflineModels, known: PublicModels, taken: Mapping[str, str], qualities: Mapping[str, Sequence[float]]
) -> bytes:
    """Return the card, Markdown.

    Args:
        taken: candidate -> the sources of its scores, in words. qualities: candidate -> its quality and the ends of its interval.
    """
    lines = [
        "# A prior, of public scores and list prices",
        "",
        f"{CLAIM}. No model was asked. Written by `ipr init --offline`.",
        "",
        "| candidate | scores of | sources | quality [95 %] | price of |",
        "|---|---|---|---|---|",
    ]
    for one in models.models:
        quality, low, high = qualities[one.name]
        like = ", named in its place" if one.like else ""
        lines.append(
            f"| {one.name} | {one.public.name}{like} | {taken[one.name]} | {quality:.3f} [{low:.3f}, {high:.3f}] | "
            f"{models.price_dates[one.name]} |"
        )
    lines += [
        "",
        "- Quality is what the model would reach on the mean over five public sources: maths and code, knowledge, SQL, Japanese chat, "
        "Czech facts. Your prompts are others.",
        "- A head is one number for every prompt. Prices and lengths alone tell prompts apart.",
        "- Output tokens are of public answers, estimated from their texts; hidden reasoning tokens are not in them.",
        "- Tau goes from the highest score to the lowest (rule `minmax`). There is no promise, and nothing is certified.",
        f"- {STUDIED}",
        f"- Prices that the file of models left out are list prices of {known.prices_from}, fetched on {known.prices_date}.",
    ]
    return ("\n".join(lines) + "\n").encode()


def prior_sentences(made: OfflineRouter) -> str:
    """Return what came of `offline_router` in two sentences."""
    first = (
        f"{CLAIM}: qualities are public scores ({', '.join(made.sources)}), prices are of {made.prices_date}, and no head reads the "
        "prompt."
    )
    most = max(made.candidates, key=lambda one: one.share)
    best = max(made.candidates, key=lambda one: one.quality)
    whose = (
        f"{most.share:.0%} of the {made.prompts} prompts go"
        if made.prompts
        else f"a request of {TYPICAL:,} input tokens goes"
    )
    if most is best and most.share == 1:
        cost = ", the one of the highest score: a greater tau lets a cheaper one answer"
    else:
        cost = "" if made.of_best_cost is None else f", at {made.of_best_cost:.0%} of what {best.name} alone would cost"
    alike = (
        f"public scores do not tell it apart from {', '.join(most.alike)}"
        if most.alike
        else "public scores tell it apart from the others"
    )
    return f"{first} At tau {made.tau:g} (rule {made.rule}) {whose} to {most.name}{cost}; {alike}."
