"""A bundle's engine on a source of known outcomes: every figure of docs/metrics.md, decided by the engine itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data import Outcomes as OutcomeData
from ipr_engine.data import name_in_source
from ipr_engine.embedded import EmbeddedPrompts, embed_for
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.baselines import litellm_tiers
from ipr_engine.evaluation.bootstrap import DRAWS
from ipr_engine.evaluation.routing import Outcomes
from ipr_engine.evaluation.summary import Split, Summary, summarise
from ipr_engine.evaluation.support import Judged, support_figures
from ipr_engine.evaluation.sweeps import TAUS, WORTHS
from ipr_engine.training.folds import grouped_folds

Array = npt.NDArray[np.float64]
Embed = Callable[[OutcomeData], EmbeddedPrompts]

FOLDS = 5
PACKAGES = ("ipr_engine", "numpy", "scikit-learn", "matplotlib")

NEEDED = ("quality", "output_tokens", "cost_usd")  # of every candidate on a row that counts


def evaluate_engine(
    engine: Engine,
    outcomes: OutcomeData,
    *,
    names: Mapping[str, Sequence[str]] = MappingProxyType({}),
    allowed: Sequence[str] | None = None,
    family: Sequence[str] | None = None,
    also: Sequence[OutcomeData] = (),
    validate_on_train: bool = False,
    litellm: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
    command: str = "",
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Summary:
    """Evaluate on the source's split "test"; baselines and the cost axis come from its split "train". Complete rows only.

    A two-tier bundle is judged by what both tiers together choose at its gap; predictions are those of the heads that decide at
    tau 0, and baselines see the first encoder's embeddings.

    Args:
        outcomes: a source with both splits, tokens and costs.
        names: candidate -> its names in the sources, where neither equal nor in the bundle's provenance (`ipr train`).
        allowed, family: only these candidates; of them those count that are in the source.
        also: other sources that have some of the candidates, for error against support alone: their split "test" (all of a
            source without one), less the questions of the train split.
        validate_on_train, draws, seed: see `summary.summarise`. litellm: with LiteLLM's heuristic_v2 as a baseline.
        command: shown as what wrote the report.
        cache: folder that keeps a transformer's embeddings.
    Returns:
        Summary; its figures also hold "support" (`support.support_figures`, a source each; empty where the bundle has no
        centroids) and "about": what a reader needs to repeat it. No folder of the machine is named.
    Raises:
        InvalidInputError: no candidate is in a source, or there is no complete row.
        BackendUnavailableError: the extra [eval], or litellm, is missing.
    """
    known = source_names(engine, outcomes, names)
    have = {model for source in (outcomes, *also) for model in source.models}
    for asked in (asked for several in names.values() for asked in several):
        if asked not in have:
            raise InvalidInputError(f"names: {asked!r} is in no source; known: {', '.join(sorted(have))}")
    wanted = engine.policy(tau=0.0, allowed=allowed, family=family).allowed
    shared = [name for name in wanted if known[name] in outcomes.models]
    left_out = [name for name in wanted if name not in shared]
    if left_out:
        progress(f"not in the source, left out: {', '.join(left_out)}; name them with --map NAME=SOURCE")
    if not shared:
        raise InvalidInputError(
            f"outcomes: no candidate is in the source {outcomes.source}; it has {', '.join(sorted(outcomes.models))}"
        )
    progress(f"{len(shared)} candidates")
    columns = [known[name] for name in shared]

    def embed(rows: OutcomeData) -> EmbeddedPrompts:
        return embed_for(engine, rows.prompts, cache=cache, progress=progress)

    train = _read(embed, outcomes.of_split("train").complete(columns, measures=NEEDED), shared)
    test = _read(embed, outcomes.of_split("test").complete(columns, measures=NEEDED), shared)
    judged = _judge(engine, embed, test, train, shared, also, names)
    summary = summarise(
        shared,
        train.split,
        test.split,
        grouped_folds(train.rows.question_keys, FOLDS, seed),
        validate_on_train=validate_on_train,
        tiers=litellm_tiers(test.rows.prompts) if litellm else None,
        draws=draws,
        seed=seed,
        progress=progress,
    )
    summary.figures["about"] = _about(engine, shared, train.rows, test.rows, litellm=litellm, command=command)
    summary.figures["support"] = [support_figures(part, draws=draws, seed=seed) for part in judged]
    return summary


def source_names(engine: Engine, outcomes: OutcomeData, names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Every candidate's name in a source: the first asked for that the source has, else what the bundle's provenance says."""
    unknown = sorted(set(names) - set(engine.bundle.names))
    if unknown:
        raise InvalidInputError(f"names: unknown {unknown[0]!r}; the candidates are {', '.join(engine.bundle.names)}")
    trained_as = engine.bundle.provenance.get("sources", {})
    recorded = {name: name_in_source(trained_as, name, outcomes.source) for name in engine.bundle.names}
    return recorded | {
        name: asked for name, several in names.items() for asked in reversed(several) if asked in outcomes.models
    }


@dataclass(frozen=True, eq=False)
class _Read:
    """One split as the evaluation sees it, the outcomes it came from, and (rows,) support where the bundle measures it."""

    split: Split
    rows: OutcomeData
    support: Array | None


def _read(embed: Embed, rows: OutcomeData, names: Sequence[str]) -> _Read:
    embedded = embed(rows)
    engine = embedded.engine
    columns = [engine.bundle.names.index(name) for name in names]
    tokens = None if _predicts_tokens(engine) else rows.output_tokens.mean(axis=0)
    decisions = embedded.decide(tau=0.0, allowed=names, tokens_out=_all_columns(engine, columns, tokens))
    split = Split(
        outcomes=Outcomes.complete(rows.quality, rows.cost_usd),
        x=np.asarray(embedded.first.x, np.float64),
        groups=rows.question_keys,
        predicted=np.asarray(decisions.qualities[:, columns], np.float64),
        predicted_cost=np.asarray(decisions.costs_usd[:, columns], np.float64),
        sweeps=_sweeps(embedded, names, columns, tokens),
        tokens=rows.output_tokens,
        predicted_tokens=np.asarray(decisions.tokens_out[:, columns], np.float64),
    )
    return _Read(split, rows, None if decisions.support is None else np.asarray(decisions.support, np.float64))


def _judge(
    engine: Engine,
    embed: Embed,
    test: _Read,
    train: _Read,
    shared: Sequence[str],
    also: Sequence[OutcomeData],
    names: Mapping[str, Sequence[str]],
) -> list[Judged]:
    """What error against support is taken on: the test split, then the other sources."""
    if test.support is None:
        if also:
            raise InvalidInputError("also: the bundle measures no support, so other sources cannot be held against it")
        return []
    means = train.split.outcomes.quality.mean(axis=0)
    judged = [Judged(test.rows.source, test.support, test.split.predicted, test.split.outcomes.quality, means)]
    by_name = dict(zip(shared, means, strict=True))
    return judged + [_elsewhere(engine, embed, other, names, by_name, train.rows) for other in also]


def _elsewhere(
    engine: Engine,
    embed: Embed,
    other: OutcomeData,
    names: Mapping[str, Sequence[str]],
    means: Mapping[str, float],
    train: OutcomeData,
) -> Judged:
    """Another source's held-out prompts, on the evaluated candidates that it has."""
    known = source_names(engine, other, names)
    shared = [name for name in means if known[name] in other.models]
    if not shared:
        have = ", ".join(sorted(other.models))
        raise InvalidInputError(
            f"also: no evaluated candidate is in {other.source}; it has {have}; name them with --map"
        )
    held_out = other.of_split("test") if "test" in other.splits else other
    rows = held_out.without_questions_of(train).complete([known[name] for name in shared])
    columns = [engine.bundle.names.index(name) for name in shared]
    tokens = None if _predicts_tokens(engine) else np.zeros(len(engine.bundle.names), np.float32)  # costs play no part
    decisions = embed(rows).decide(tau=0.0, allowed=shared, tokens_out=tokens)
    return Judged(
        other.source,
        np.asarray(decisions.support, np.float64),
        np.asarray(decisions.qualities[:, columns], np.float64),
        rows.quality,
        np.array([means[name] for name in shared]),
    )


def _predicts_tokens(engine: Engine) -> bool:
    return "len_skip" in engine.bundle.quality_heads.tensors


def _all_columns(engine: Engine, columns: list[int], tokens: Any) -> Any:
    """Tokens (models of the bundle,) from those of the evaluated columns; None stays None."""
    if tokens is None:
        return None
    result = np.zeros(len(engine.bundle.names), np.float32)
    result[columns] = tokens
    return result


def _sweeps(
    embedded: EmbeddedPrompts, names: Sequence[str], columns: list[int], tokens: Any
) -> dict[str, npt.NDArray[np.int64]]:
    """Every sweep of the router, decided by the engine; choices are positions in `names`."""
    engine = embedded.engine
    position = np.full(len(engine.bundle.names), -1)
    position[columns] = np.arange(len(columns))
    given = _all_columns(engine, columns, tokens)
    heads = (engine.bundle.quality_heads, engine.bundle.escalation_heads)
    constant = all(h.rule_constants is not None for h in heads if h is not None)
    rules = ["minmax", "max"] + (["fixed"] if constant else [])
    plans: dict[str, list[dict[str, Any]]] = {"worth": [{"tau": 1.0, "worth": float(worth)} for worth in WORTHS]}
    plans |= {rule: [{"tau": float(tau), "rule": rule} for tau in TAUS] for rule in rules}
    return {
        name: np.stack([position[embedded.decide(allowed=names, tokens_out=given, **terms).index] for terms in plan])
        for name, plan in plans.items()
    }


def _about(
    engine: Engine, names: Sequence[str], train: OutcomeData, test: OutcomeData, *, litellm: bool, command: str
) -> dict[str, Any]:
    fitted = engine.bundle.quality_heads.fitted_on
    if fitted.prompt_ids_sha256 == train.prompt_ids_sha256:
        overlap = "exactly the train rows read here: its predictions on train are in-sample"
    else:
        overlap = "not exactly the train rows read here, but some may be among them: in-sample then"
    return {
        "title": f"{engine.bundle.name} bundle, {len(names)} candidate{'s' if len(names) > 1 else ''}, "
        f"on {test.source}, {len(test)} test prompts",
        "command": command,
        "bundle": f"{engine.bundle.name} {engine.bundle.hash}",
        "source": test.source,
        "outcomes": f"{test.source}; test prompt ids sha256 {test.prompt_ids_sha256}",
        "incomplete rows left out": f"{train.dropped} train, {test.dropped} test",
        "router fitted on": f"{fitted.prompts} prompts of {fitted.source}; {overlap}",
        "decided by": f"the C++ op, {engine.plan.isa}" + _tiers(engine),
        "output tokens": "predicted"
        if _predicts_tokens(engine)
        else "the source's means, since the heads predict none",
        "versions": ", ".join(
            f"{name} {found}" for name in (*PACKAGES, *(["litellm"] if litellm else [])) if (found := _version(name))
        ),
    }


def _tiers(engine: Engine) -> str:
    spec = engine.bundle.escalation
    return "" if spec is None else f"; where the gap is below {spec.gap:g} again by the second heads"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
