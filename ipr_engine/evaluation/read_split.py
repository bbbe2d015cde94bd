"""A `ReadSplit` is one split of a source as an engine reads it; `swept` runs every sweep of the engine on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data import Outcomes as OutcomeData
from ipr_engine.decision.decisions import Decisions
from ipr_engine.evaluation.costs import CostBasis
from ipr_engine.evaluation.embedded import DecidingEngine, EmbeddedPrompts
from ipr_engine.evaluation.equal_quality import SHARES
from ipr_engine.evaluation.evaluation_inputs import Split
from ipr_engine.evaluation.promised import choices_of_shares
from ipr_engine.measures.routing import WeightedOutcomes
from ipr_engine.measures.sweeps import TAUS, stacked
from ipr_engine.policy.paths import Paths

Array = npt.NDArray[np.float64]
Embed = Callable[[OutcomeData], EmbeddedPrompts]


@dataclass(frozen=True, eq=False)
class ReadSplit:
    """A `ReadSplit` is one split, read, embedded and decided at tau 0.

    Attributes:
        rows: the outcomes it came from. outcomes: their qualities and costs; stand_ins: see `costs.RealisedCosts`.
        tokens: (models of the bundle,) output tokens that decisions are given, None where the heads predict them.
        decisions: at tau 0. columns: the evaluated candidates in the bundle.
    """

    embedded: EmbeddedPrompts
    rows: OutcomeData
    outcomes: WeightedOutcomes
    stand_ins: int
    tokens: Any
    decisions: Decisions
    columns: list[int]

    @property
    def predicted(self) -> Array:
        return np.asarray(self.decisions.qualities[:, self.columns], np.float64)

    @property
    def support(self) -> Array | None:
        """The support of each row, (rows,); None where the bundle measures none."""
        return None if self.decisions.support is None else np.asarray(self.decisions.support, np.float64)


def read_split(embed: Embed, basis: CostBasis, split: OutcomeData) -> ReadSplit:
    """Read one split and decide on it at tau 0."""
    rows = basis.complete(split)
    embedded = embed(rows)
    engine = embedded.engine
    columns = [engine.bundle.names.index(name) for name in basis.names]
    # Heads without output tokens cannot expect a cost: the source's means stand in, and the report says so.
    tokens = None
    if not predicts_tokens(engine):
        tokens = _all_columns(engine, columns, rows.output_tokens.mean(axis=0))
    decisions = embedded.decide(tau=0.0, allowed=basis.names, tokens_out=tokens)
    realised = basis.realised(rows, decisions.billed_tokens, decisions.own_tokens)
    return ReadSplit(
        embedded=embedded,
        rows=rows,
        outcomes=WeightedOutcomes.complete(rows.quality, realised.cost),
        stand_ins=realised.stand_ins,
        tokens=tokens,
        decisions=decisions,
        columns=columns,
    )


def swept(read: ReadSplit, names: Sequence[str], worths: Array) -> Split:
    """Return the split as `summarise` takes it, with every sweep of the router."""
    return Split(
        outcomes=read.outcomes,
        x=read.embedded.embedding,
        groups=read.rows.question_keys,
        predicted=read.predicted,
        predicted_cost=np.asarray(read.decisions.costs_usd[:, read.columns], np.float64),
        sweeps=_sweeps(read, names, worths),
        tokens=read.rows.output_tokens,
        predicted_tokens=np.asarray(read.decisions.tokens_out[:, read.columns], np.float64),
    )


def path_choices(engine: DecidingEngine, test: ReadSplit, names: Sequence[str]) -> dict[float, npt.NDArray[np.integer]]:
    """Return what rule `path` chooses on the test split where it is asked for each share of the best single's quality."""
    if Paths(engine.bundle).lacking(names) is not None:
        return {}
    path = engine.policy(tau=0.5, rule="path", allowed=names).path  # of any inner tau: it is that of the candidates
    assert path is not None
    return choices_of_shares(path, SHARES, lambda plan: choices_of(test, names, plan))


def predicts_tokens(engine: DecidingEngine) -> bool:
    """Tell whether the deciding heads predict output tokens."""
    return "len_skip" in engine.bundle.quality_heads.tensors


def _all_columns(engine: DecidingEngine, columns: list[int], tokens: Array) -> npt.NDArray[np.float32]:
    """Return tokens (models of the bundle,) from those of the evaluated columns."""
    result = np.zeros(len(engine.bundle.names), np.float32)
    result[columns] = tokens
    return result


def _sweeps(read: ReadSplit, names: Sequence[str], worths: Array) -> dict[str, npt.NDArray[np.integer]]:
    """Decide every sweep of the router by the engine; choices are positions in `names`."""
    bundle = read.embedded.engine.bundle
    # Rule `fixed` needs its constants of both tiers.
    constant = all(
        h.rule_constants is not None for h in (bundle.quality_heads, bundle.escalation_heads) if h is not None
    )
    rules = ["minmax", "max"] + (["fixed"] if constant else [])
    plans: dict[str, list[dict[str, Any]]] = {
        "worth": [{"rule": "minmax", "tau": 1.0, "worth": float(worth)} for worth in worths]
    }
    plans |= {rule: [{"tau": float(tau), "rule": rule} for tau in TAUS] for rule in rules}
    return {name: choices_of(read, names, plan) for name, plan in plans.items()}


def choices_of(read: ReadSplit, names: Sequence[str], plan: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.integer]:
    """Choose by the engine under each of these policy options: positions in `names`, (settings, rows)."""
    position = np.full(len(read.embedded.engine.bundle.names), -1)  # in the bundle -> in `names`
    position[read.columns] = np.arange(len(read.columns))
    return stacked(
        position[read.embedded.decide(allowed=names, tokens_out=read.tokens, **policy).index] for policy in plan
    )
