"""This module renders the model card of the default bundle: every number in it comes from the run that wrote it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipr_engine.bundle import Bundle, Candidate, PathRows
from ipr_engine.bundle.origin import constant_notice, constant_of
from ipr_engine.evaluation.markdown import number, per_1000, plain, table
from ipr_engine.evaluation.report import verdict
from ipr_engine.training.fitted_heads import CAP_PERCENTILE
from studies.default_bundle.read_in_full_width import EDIT, MIN_SUPPORT, TAU, WidthFigures

TAUS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
SHARES = (0.99, 0.95)
SHOWN = (
    "router, worth", "router, minmax", "hull of singles", "k-means, worth", "kNN, worth", "ridge, worth",
    "paper's minmax, mean cost", "oracle",
)  # fmt: skip
_ESTIMATORS = {
    "plain": "plain ridge, a penalty per candidate",
    "advantage_shared": "ridge for difficulty (the row's mean) and advantage (each candidate's deviation) apart, one penalty "
    "for all advantages",
    "advantage_each": "ridge for difficulty (the row's mean) and advantage (each candidate's deviation) apart",
    "caps": "ridge, difficulty and advantage apart, on the embedding and on how far it lies inside caps around centroids of the "
    "training embeddings",
}


@dataclass(frozen=True)
class SourceFacts:
    """`SourceFacts` is what a source says of itself; datasets: task -> test prompts."""

    name: str
    repository: str
    commit: str
    licence: str
    quality: str
    tokens: str
    cost: str
    datasets: Mapping[str, int]

    @property
    def datasets_total(self) -> int:
        """The prompts of all tasks."""
        return sum(self.datasets.values())


def render(
    evaluated: Sequence[Mapping[str, Any]],
    sources: Sequence[SourceFacts],
    bundle: Bundle,
    encoder: Mapping[str, Any],
    command: str,
    widths: Sequence[WidthFigures],
) -> str:
    """Return the card as Markdown.

    Args:
        evaluated: `Summary.figures` of the bundle on each source. encoder: distill.json with source and licence.
        widths: of each source, how its test prompts are read in full width.
    """
    blocks = [
        *_meaning(sources, bundle, command),
        *_recipe(evaluated, bundle, encoder, keeps_heads="--keep-heads" in command.split()),
        *(block for source, f in zip(sources, evaluated, strict=True) for block in _on_test(source.name, f)),
        *_full_width(widths),
        *_limits(evaluated, bundle),
        *_licences(sources, encoder, bundle.path_rows),
    ]
    return "\n\n".join(blocks) + "\n"


def _meaning(sources: Sequence[SourceFacts], bundle: Bundle, command: str) -> list[str]:
    families = {candidate.family for candidate in bundle.candidates}
    kinds = [
        f"**{source.name}** ({source.repository}): {source.quality}. Test prompts by task: "
        + (", ".join(f"{name} {rows}" for name, rows in source.datasets.items()) or "not stated")
        + "."
        for source in sources
    ]
    return [
        f"# Model card: the {bundle.name} bundle",
        f"Written by `{command}`; do not edit.",
        filled(
            f"{len(bundle.names)} candidates of {len(families)} families: {', '.join(f'`{n}`' for n in bundle.names)}."
        ),
        "## What quality means here",
        filled("The chance that the candidate's one answer scores, as the outcome data judged it:"),
        bullets(kinds),
        filled("""Nothing else was fitted on. On chat, writing, retrieval or tool calls the predictions are
            **extrapolation**: fit heads on outcomes of your own traffic (docs/own-bundle.md). The bundle exists so that
            the library works at once and its figures can be checked, not as a judge of LLMs."""),
    ]


_HASHED = """ The bundle keeps hashes of them (HMAC-SHA256) under a key that is published,
        ipr_engine/default_bundle/owner.key: the prompts are public, and anyone can check theirs for leaks."""


_KEPT = """ Heads, path rows and support are those of an earlier bundle of this recipe (`--keep-heads`), fitted on these very rows; the
        encoder gives every one of them the same bits as it did there."""


def _recipe(
    evaluated: Sequence[Mapping[str, Any]], bundle: Bundle, encoder: Mapping[str, Any], *, keeps_heads: bool
) -> list[str]:
    made, cosine = bundle.provenance, encoder["cosine_to_float32"]
    prompts = bundle.quality_heads.fitted_on.prompts
    settings = made["settings"]
    hashed = "" if bundle.quality_heads.fitted_on.hash_key is None else _HASHED
    estimator = settings["estimator"]
    partly = _partly_judged(bundle.names, [rows / prompts for rows in made["judged"]])
    biases = ", ".join(
        f"{plain(f['prediction'][0]['cost']['bias'], '.2f')} times ({f['about']['source']})" for f in evaluated
    )
    kept = _KEPT if keeps_heads else ""
    leaked = f", {made['leaked']} of them for a question that another source holds out" if made["leaked"] else ""
    steps = [
        f"""**Encoder**: {encoder["source"]} distilled by model2vec into {encoder["rows"]} tokens x {encoder["dim"]} dimensions,
        {encoder["dtype"]} (cosine to float32 over {cosine["probes"]} random sentences: mean {cosine["mean"]:.6f}, least
        {cosine["least"]:.6f}). It reads full width forms as the ASCII that they stand for.
        Of several turns of a user each is encoded alone, and weighs half of the next (docs/encoders.md).""",
        f"""**Rows**: {prompts} training prompts of {", ".join(made["outcomes"])}; {made["dropped"]} left out{leaked}. A
        prompt counts for the candidates judged on it: all of them on every prompt{f", but {partly}" if partly else ""}.{hashed}""",
        f"""**Quality**: `{estimator}`{f" ({_ESTIMATORS[estimator]})" if estimator in _ESTIMATORS else ""}; penalties and
        Platt's map per candidate out of fold, {settings["folds"]} folds grouped by question.{_compared(made["compared"])}{kept}""",
        f"""**Output tokens**: ridge on log tokens with Duan's smearing factor, capped at the {CAP_PERCENTILE}th percentile of
        the candidate's training tokens.""",
        f"""**Input tokens**: {_counted(bundle.candidates)} The sources' input counts are estimates that include the frame they
        put around each question, so they tell no candidate's tokenizer apart. In sum, predicted costs are {biases} the
        real ones.""",
        f"""**Prices** are list prices of {bundle.prices.date[:4]} as recorded beside the outcomes, each with its basis in
        prices.json; check them before quoting a cost. Context windows and features are the providers' public
        statements.""",
    ]
    if bundle.path_rows is not None:
        steps.append(_path(bundle.path_rows))
    return ["## How it was made", "\n".join(filled(step, f"{i}. ") for i, step in enumerate(steps, 1))]


def _counted(candidates: Sequence[Candidate]) -> str:
    """Say by which tokenizer each candidate is billed, and its token_ratio."""
    groups: dict[tuple[str, float], list[str]] = {}
    for candidate in candidates:
        named = "" if candidate.tokenizer is None else candidate.tokenizer.name
        groups.setdefault((named, candidate.token_ratio), []).append(candidate.name)
    stated = [
        f"{', '.join(names)} by {f'the profile `{named}`' if named else 'the encoder alone'}, {ratio:.2f} tokens per token of the encoder"
        for (named, ratio), names in groups.items()
    ]
    return f"""estimated from what a text is made of (docs/tokens.md): {"; ".join(stated)}. `claude_2` is the last tokenizer that Anthropic
        published, and `bpe` the mean of five known ones, for tokenizers that are not at hand: approximations both."""


def _path(rows: PathRows) -> str:
    own = "" if rows.tokens_in is None else " and each candidate's own input tokens"
    return f"""**Path rows**: of {len(rows.quality)} training prompts, in random order, the quality and output tokens predicted out of
        fold, the outcome, the billed tokens{own}. They hold no text, no id and no hash. Tau's path of any candidate set is
        computed from them."""


def _compared(scores: Sequence[Mapping[str, Any]]) -> str:
    """Tell the choice of the estimator, on training prompts alone; "" where it was named and not chosen."""
    if not scores:
        return ""
    shown = ", ".join(
        f"`{score['estimator']}` {score['area_worth']:.3f} and {score['area_minmax']:.3f}"
        for score in scores
        if score["area_worth"] is not None
    )
    return f""" Chosen by nested cross-validation on the training prompts alone, by the mean Bounded-ARQGC of the sweeps of
        worth and of tau: {shown}."""


def _partly_judged(names: Sequence[str], shares: Sequence[float]) -> str:
    """Say who is judged on what share of the prompts, those of one share together; "" where all are on all."""
    groups: dict[str, list[str]] = {}
    for name, share in zip(names, shares, strict=True):
        if share < 1:
            groups.setdefault(f"{share:.1%}", []).append(name)
    return ", ".join(
        f"{', '.join(group) if len(group) < 4 else f'{len(group)} candidates'} on {share}"
        for share, group in groups.items()
    )


def _on_test(name: str, f: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            c["name"],
            number(c["quality"]),
            f"{c['predicted_quality']:.3f}",
            f"{c['brier']:.3f}",
            plain(c["ece"]),
            number(per_1000(c["cost_usd"])),
            f"{1000 * c['predicted_cost_usd']:.3f}",
            plain(c["tokens"]["median_relative"], ".0%") if "tokens" in c else "-",
        ]
        for c in f["candidates"]
    ]
    left_out = f["about"]["incomplete rows left out"]
    head = ["candidate", "quality", "predicted", "Brier", "ECE", "USD per 1,000", "predicted", "tokens: median error"]
    return [
        f"## On the test split of {name} ({f['rows']['test']} prompts)",
        filled(f"""Figures as docs/metrics.md defines them, complete rows only (left out: {left_out}); brackets: 95 % bootstrap
            intervals over prompts, {f["draws"]} draws. `ipr eval` writes these and more. Costs: list price x the source's
            token counts."""),
        table(head, rows),
        *_routing(f),
    ]


def _full_width(widths: Sequence[WidthFigures]) -> list[str]:
    rows = [
        [f"{figures.source}, {row.way}", f"{row.same:.1%}", f"{row.flipped:.1%}", f"{row.unsupported:.1%}"]
        for figures in widths
        for row in figures.rows
    ]
    return [
        "## Test prompts in full width",
        filled(f"""The edit "{EDIT}" writes every ASCII character of a test prompt as wide as a Chinese one. Decided at tau {TAU:g};
            without folding: the same heads on the same table. Where qualities are the same, a decision is another one because of
            the bill: candidates' own tokenizers count the text as it was written, and full width as more tokens."""),
        table(
            [
                "test prompts of",
                "qualities as of the prompts as they are",
                "decided otherwise",
                f"support below {MIN_SUPPORT:g}",
            ],
            rows,
        ),
    ]


def _routing(f: Mapping[str, Any]) -> list[str]:
    lines = {c["name"]: c for c in f["contenders"]}
    rows = []
    for name in SHOWN:
        at = {point["share"]: point for point in lines[name]["operating_points"]}
        rows.append(
            [
                f"**{name}**" if lines[name]["kind"] == "router" else name,
                number(lines[name]["area"]),
                number(lines[name]["router_minus_this"].get("router, worth"), signed=True),
                *(f"{_percent(at[share]['saved'])}; {_percent(at[share]['kept'])}" for share in SHARES),
            ]
        )
    taus = [
        [f"{t['tau']:g}", number(t["quality"]), number(per_1000(t["cost_usd"])), _percent(t["saved"])]
        for t in f["tau"]
        if any(abs(t["tau"] - shown) < 1e-9 for shown in TAUS)
    ]
    return [
        filled(f"""Quality over cost between the cheapest (`{f["axis"]["cheapest"]}`) and the best single candidate
            (`{f["axis"]["best"]}`) of the training split: 0 = the cheapest one's quality everywhere, 0.5 = a random mix, 1 = the
            best one's quality everywhere. Savings: the setting is chosen on the {f["validation"]} to keep that share of the best
            single's quality; cost saved, then quality really kept."""),
        table(["", "area", "`worth` sweep minus it", *(f"keep {share:.0%}" for share in SHARES)], rows),
        filled(verdict(f, "router, worth").removeprefix("- ")),
        table(["`minmax`, tau", "quality", "USD per 1,000", "saved against the best single"], taus),
    ]


def _percent(estimate: Mapping[str, Any]) -> str:
    return number(estimate, 1, percent=True)


def _limits(evaluated: Sequence[Mapping[str, Any]], bundle: Bundle) -> list[str]:
    constant = constant_of(bundle)
    points = [
        *([f"The {constant_notice(constant, len(bundle.names))}."] if constant else []),
        "One sampled answer per prompt and candidate: part of every gap to the oracle is noise.",
        "The intervals cover the sampling of test prompts of the same kind, not another workload.",
        "No share of quality is guaranteed: compare what was asked for with what was kept above.",
        *_support(evaluated),
        "Costs are list prices x estimated token counts, not bills.",
        f"Candidates and prices are of {bundle.prices.date[:4]}; models, prices and providers change.",
    ]
    return ["## Limits", bullets(points)]


def _support(evaluated: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in words, by the interval, what `support` tells of the error on each source."""
    found = []
    for source in (f["support"][0] for f in evaluated if f["support"]):
        halves = source["low_minus_high"]
        if halves is not None:
            low, high = halves["brier"]["low"], halves["brier"]["high"]
            word = "greater" if low > 0 else "smaller" if high < 0 else "not told apart"
            means = number(halves["brier_of_means"], signed=True)
            found.append(f"{source['name']} {word}, {number(halves['brier'], signed=True)} (of training means {means})")
    if not found:
        return []
    return [
        f"""`support` says how near a prompt is to the fitting prompts, not how good its prediction is. Squared error of test
        prompts below the median of support, against the rest: {"; ".join(found)}."""
    ]


def _licences(sources: Sequence[SourceFacts], encoder: Mapping[str, Any], path: PathRows | None) -> list[str]:
    contained = (
        "No prompt and no outcome is contained in the bundle."
        if path is None
        else "No prompt and no id is contained in the bundle; outcomes are, without them and in random order, as its path rows."
    )
    digest = encoder["source_weights_sha256"]
    weights = f", weights sha256 `{digest}`" if digest else ""
    points = [
        *(
            f"""Outcomes: {source.repository}, commit {source.commit}, {source.licence}. Tokens: {source.tokens}. Cost: {source.cost}.
            {contained}"""
            for source in sources
        ),
        f"""Encoder: {encoder["source"]}, {encoder["licence"]}{weights}; distilled with
        model2vec {encoder["versions"]["model2vec"]} (MIT).""",
        "Method: IPR, *Intelligent Prompt Routing*, arXiv 2509.06274; Platt (1999); Duan (1983).",
    ]
    return ["## Sources and licences", bullets(points)]


def bullets(points: Iterable[str]) -> str:
    """Return points as a Markdown list, each filled to the width of a card."""
    return "\n".join(filled(point, "- ") for point in points)


def filled(text: str, bullet: str = "") -> str:
    """Return a text in lines of a card's width, the first one behind `bullet`."""
    return textwrap.fill(
        " ".join(text.split()),
        120,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
