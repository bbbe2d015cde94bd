"""This module renders the model card of the bundle `default-2026`: every number in it comes from the run that wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.origin import constant_of
from ipr_engine.evaluation.markdown import number, table
from studies.default_bundle.model_card import SourceFacts, bullets, filled


@dataclass(frozen=True)
class SupportShare:
    """A `SupportShare` says how many of a source's prompts are unsupported. fitted: heads and centroids were fitted on them."""

    source: str
    fitted: bool
    prompts: int
    unsupported: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def render_card(
    bundle: Bundle, sources: Sequence[SourceFacts], japanese: Bundle, shares: Sequence[SupportShare], command: str
) -> str:
    """Return the card as Markdown.

    Args:
        sources: home first. japanese: a bundle fitted on the second source alone, on those candidates that it judged.
        shares: of prompts that have too little support, by source.
    """
    home, other = sources
    counts = bundle.provenance["judged"]
    partly = [name for name, rows in zip(bundle.names, counts, strict=True) if rows > home.datasets_total]
    families = {candidate.family for candidate in bundle.candidates}
    blocks = [
        f"# Model card: the {bundle.name} bundle",
        filled(f"Written by `{command}`; do not edit."),
        filled(
            f"{len(bundle.names)} candidates of {len(families)} families at list prices of {bundle.prices.date[:4]}."
        ),
        "## Know this first",
        bullets(
            [
                f"""**SQL and Japanese chat only**, {bundle.quality_heads.fitted_on.prompts} prompts: {home.datasets_total} of {home.name},
                {other.datasets_total} of {other.name}. Of any other traffic the bundle knows nothing. Such a prompt is *unsupported*: where
                its support is below {_least(bundle):g} and the policy says nothing else, it goes to `{_model(bundle)}`.""",
                f"""**Of Japanese only {len(partly)} of {len(bundle.names)} candidates were judged**:
                {", ".join(f"`{n}`" for n in partly)}. How the others answer Japanese is not known: they stand at their level on
                SQL. The token table is English, and reads Japanese poorly. For Japanese traffic restrict `allowed` to the
                {len(partly)}, or fit a bundle of your own.""",
                "**A few hundred prompts are few.** What the figures below do not tell apart may well be no gain: see each verdict.",
                """It exists so that modern candidates can be tried at once. It is no judge of LLMs: fit heads on outcomes of your own
                traffic (docs/own-bundle.md).""",
            ]
        ),
        "## What quality means here",
        bullets(
            f"**{source.name}** ({source.repository}): {source.quality}. Prompts by task: "
            + ", ".join(f"{name} {rows}" for name, rows in source.datasets.items())
            + "."
            for source in sources
        ),
        filled(
            """The two scales differ: SQL counts criteria that an answer passes, Japanese chat is a grade by GPT-4.1. Quality and
            tau's path speak of SQL; the Japanese prompts have an intercept of their own, which the heads leave out."""
        ),
        *_candidates(bundle),
        *_standing("SQL", bundle.provenance, home.name),
        *_standing("Japanese chat", japanese.provenance, f"{other.name}, fitted on it alone"),
        *_constant(japanese),
        *_shares(bundle, shares),
        *_made(bundle),
        "## Sources and licences",
        bullets(
            [
                *(
                    f"""Outcomes: {source.repository}, commit {source.commit}, {source.licence}. Tokens: {source.tokens}. Cost:
                    {source.cost}."""
                    for source in sources
                ),
                "No prompt and no id is contained; outcomes are, without them and in random order, as path rows of SQL.",
                "Encoder: the default bundle's table (docs/model-card.md), and surface features (docs/encoders.md).",
            ]
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _model(bundle: Bundle) -> str:
    return "" if bundle.unsupported is None else bundle.unsupported.model


def _least(bundle: Bundle) -> float:
    return 0.0 if bundle.unsupported is None else bundle.unsupported.min_support


def _candidates(bundle: Bundle) -> list[str]:
    judged = bundle.provenance["judged"]
    prices = bundle.prices.prices
    rows = [
        [
            candidate.name,
            candidate.provider,
            f"{prices[candidate.name].input_usd_per_1m:g}",
            f"{prices[candidate.name].output_usd_per_1m:g}",
            "-" if candidate.context_window is None else f"{candidate.context_window:,}",
            f"{count}",
        ]
        for candidate, count in zip(bundle.candidates, judged, strict=True)
    ]
    head = ["candidate", "provider", "USD per 1 M in", "out", "context window", "prompts judged"]
    return [
        "## Candidates",
        table(head, rows),
        filled(
            """List prices, each with its basis in prices.json; check them before quoting a cost. Output tokens are of the stored
            answers: **hidden reasoning is not counted**, so candidates that think cost more than is said here. The Claude Sonnet and
            Haiku candidates were asked with thinking."""
        ),
    ]


def _standing(what: str, provenance: Mapping[str, Any], told: str) -> list[str]:
    stood = provenance["standing"]
    lines = [
        [
            line["name"],
            number(line["area"]),
            number(line.get("router_minus_area"), signed=True),
            number(line["cost"], 0, percent=True),
        ]
        for line in stood["lines"]
    ]
    head = ["", "area", "router minus it", f"cost at {stood['share']:.0%} of the best single's quality"]
    return [
        f"## {what}: how far the router is ({stood['prompts']} prompts of {told})",
        filled(
            f"""Every prompt is predicted by a fit that has not seen its question; brackets: 95 %, paired. The best single candidate is
            `{stood["best"]}`. The estimator is {_estimator(provenance)}."""
        ),
        table(head, lines),
        bullets(f"{sentence}." for sentence in stood["says"]),
    ]


def _constant(japanese: Bundle) -> list[str]:
    """Say of how many heads fitted on the second source alone prompts cannot be told apart; nothing where all can."""
    constant = constant_of(japanese)
    if not constant:
        return []
    return [
        filled(
            f"""Of the {len(japanese.names)} heads fitted on it alone, {len(constant)} are constant: out of fold they tell prompts apart no
            better than the candidate's mean does. These heads are not in the bundle."""
        )
    ]


def _estimator(provenance: Mapping[str, Any]) -> str:
    name, compared = provenance["settings"]["estimator"], provenance["compared"]
    if not compared:
        return f"`{name}`"
    shown = ", ".join(
        f"`{score['estimator']}` {(score['area_worth'] + score['area_minmax']) / 2:.3f}"
        for score in compared
        if score["area_worth"] is not None and score["area_minmax"] is not None
    )
    return f"""`{name}`, chosen on the same prompts by nested cross-validation, so that its figures are a little too good (mean area of the
        sweeps of worth and of tau: {shown})"""


def _shares(bundle: Bundle, shares: Sequence[SupportShare]) -> list[str]:
    rows = [
        [share.source, "yes" if share.fitted else "no", f"{share.prompts}", f"{share.unsupported / share.prompts:.1%}"]
        for share in shares
    ]
    return [
        "## What is unsupported",
        filled(
            f"""Prompts of support below {_least(bundle):g} go to `{_model(bundle)}`: the best single candidate on SQL, at a
            middling price. On other traffic nobody's quality is known, its own neither. `min_support=0` turns this off,
            `unsupported=` names another one (docs/usage.md)."""
        ),
        table(["prompts of", "fitted on", "prompts", "unsupported"], rows),
    ]


def _made(bundle: Bundle) -> list[str]:
    settings = bundle.provenance["settings"]
    steps = [
        f"""Rows: all prompts of both sources; none is held out. Folds are grouped by question ({settings["folds"]} of them), so copies of a
        question stand on one side. The bundle keeps hashes of the prompts under the published key of the default bundle.""",
        "Output tokens, input tokens, path rows and support: as in the default bundle's card.",
    ]
    return ["## How it was made", bullets(steps)]
