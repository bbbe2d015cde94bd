"""Cost may be a weighted sum of named terms: USD, seconds to the first token, seconds of generation, Wh (docs/usage.md).

    weighing = resolve_weights({"ttft_s": 0.002}, figures, names, kept)    # USD per second, beside 1 USD per USD
    weighing.folded(rates)                                                # what the op is given: no time is spent at run

A weight says what a unit of the term is worth, in USD; the sum is what a policy trades against quality in place of USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._read_only import read_only
from ipr_engine._validate import matched_once, nonnegative, shown, shown_each
from ipr_engine.bundle import Candidate, Performance, PriceList
from ipr_engine.bundle.checks import performance_problem
from ipr_engine.bundle.performance import performance_json, performance_of
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.price_table import Array, PriceTable

TERMS: Mapping[str, str] = MappingProxyType(
    {
        "usd": "USD",
        "ttft_s": "seconds to the first token",
        "generation_s": "seconds of generation: per output token, times output tokens",
        "wh": "Wh",
    }
)
# Term -> which figures of a candidate tell it: all that are stated count, one of them must be.
NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ttft_s": ("ttft_s",),
        "generation_s": ("tpot_s",),
        "wh": ("wh_per_request", "wh_per_1m_input", "wh_per_1m_output"),
    }
)
Figures = Mapping[str, Performance]  # by candidate


class CostWeights(NamedTuple):
    """A `CostWeights` says what a unit of each term is worth, in USD; see TERMS."""

    usd: float = 1.0
    ttft_s: float = 0.0
    generation_s: float = 0.0
    wh: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{name} {weight:g}" for name, weight in self._asdict().items() if weight or name == "usd")


class CostTerms(NamedTuple):
    """A `CostTerms` holds the terms of one candidate's cost on one prompt, in their own units; None where a figure is not known."""

    usd: float
    ttft_s: float | None
    generation_s: float | None
    wh: float | None


@dataclass(frozen=True)
class Weighing:
    """A `Weighing` holds the weights, and each candidate's figures in bundle order; None where nothing is known of a candidate."""

    weights: CostWeights
    figures: tuple[Performance | None, ...] = field(repr=False)

    def at(self, positions: Sequence[int]) -> Weighing:
        """Return the weighing of these candidates alone."""
        return replace(self, figures=tuple(self.figures[m] for m in positions))

    def folded(self, rates: PriceTable) -> PriceTable:
        """Return the rates of the weighted sum. A term that is not known of a candidate is left out of its rates.

        rates: the same candidates', in USD.
        """
        weights = self.weights
        return rates.weighed(
            weights.usd,
            fixed=weights.ttft_s * self._array("ttft_s") + weights.wh * self._array("wh_per_request"),
            per_input_token=weights.wh * self._array("wh_per_1m_input") / 1e6,  # figures are per 1 M tokens
            per_output_token=weights.generation_s * self._array("tpot_s")
            + weights.wh * self._array("wh_per_1m_output") / 1e6,
        )

    def lacks(self, m: int) -> tuple[str, ...]:
        """Return the terms that are weighed, and not known of the candidate at this position."""
        own = self.figures[m]
        return tuple(
            term
            for term, known in NEEDED.items()
            if getattr(self.weights, term) and (own is None or all(getattr(own, name) is None for name in known))
        )

    def known(self, sums: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return these weighted sums, (..., models), with NaN where a term of a candidate is not known."""
        lacking = [m for m in range(len(self.figures)) if self.lacks(m)]
        if not lacking:
            return sums
        sums = sums.copy()
        sums[..., lacking] = np.nan
        return sums

    def terms(self, m: int, usd: float, tokens_in: float, tokens_out: float) -> CostTerms:
        """Return every term of one candidate's cost, weighed or not. tokens_in: by its own count. tokens_out: of all answers together."""
        own = self.figures[m]
        if own is None:
            return CostTerms(usd, None, None, None)
        parts = (own.wh_per_request, own.wh_per_1m_input, own.wh_per_1m_output)
        times = (1.0, tokens_in / 1e6, tokens_out / 1e6)  # of a request, and of a million tokens
        wh = [part * count for part, count in zip(parts, times, strict=True) if part is not None]
        generation = None if own.tpot_s is None else own.tpot_s * tokens_out
        return CostTerms(usd, own.ttft_s, generation, sum(wh) if wh else None)

    def by_name(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the figures in their JSON form, as `performance=` of a policy takes them."""
        known = zip(names, self.figures, strict=True)
        return {name: performance_json(own) for name, own in known if own is not None}

    def _array(self, name: str) -> Array:
        """Return (models,) of one figure, 0 where it is not known."""
        values = [None if own is None else getattr(own, name) for own in self.figures]
        return np.array([0.0 if value is None else value for value in values], np.float64)


def resolve_weights(
    cost_weights: object, figures: Figures, names: Sequence[str], kept: Sequence[str]
) -> Weighing | None:
    """Return the weighing that a policy asks for; None where cost is plain USD.

    Args:
        cost_weights: term of TERMS -> USD per unit, >= 0; `usd` is 1 where it is left out, every other one 0.
        figures: what is known of the candidates. names: the bundle's. kept: those that may be chosen.
    Raises:
        InvalidInputError: an unknown term, a weight that is no number >= 0, none above 0, or a term that is not known of each of `kept`.
    """
    if cost_weights is None:
        return None
    reported = ", ".join(f"{name} ({unit})" for name, unit in TERMS.items())
    if not isinstance(cost_weights, Mapping) or not all(isinstance(name, str) for name in cost_weights):
        raise InvalidInputError(
            f"cost_weights: expected term -> USD per unit of it, of {reported}, got {shown(cost_weights)}"
        )
    unknown = [name for name in cost_weights if name not in TERMS]
    if unknown:
        figures_of = [
            f"{name} is the figure behind {term}" for term, own in NEEDED.items() for name in own if name in unknown
        ]
        hint = f"; {', '.join(figures_of)}" if figures_of else ""
        raise InvalidInputError(
            f"cost_weights: unknown {shown_each(unknown)}; known, each in USD per unit: {reported}{hint}"
        )
    weights = CostWeights(
        **{name: nonnegative(f"cost_weights[{name!r}]", value) for name, value in cost_weights.items()}
    )
    if not any(weights):
        raise InvalidInputError("cost_weights: expected a weight above 0, got none: nothing would cost anything")
    if weights == CostWeights():  # USD at 1 and nothing else: the plain cost, to the bit
        return None
    made = Weighing(weights, tuple(figures.get(name) for name in names))
    for term, known in NEEDED.items():
        bare = [name for m, name in enumerate(names) if name in kept and term in made.lacks(m)]
        if bare:
            raise InvalidInputError(
                f"cost_weights: {term} ({TERMS[term]}) is weighed, and {' or '.join(known)} of {', '.join(bare)} is not known; "
                "give it in performance=, engine.update_performance(...) or the bundle (`ipr set-performance`), or exclude them"
            )
    return made


def merged_figures(argument: str, before: Figures, given: object, names: Sequence[str]) -> Figures:
    """Return the figures of candidates, those that are given in place of those before, number by number.

    Args:
        given: name -> Performance, or the same as a mapping; None takes back what `before` has of the candidate. Names are found
            whatever their case.
    Raises:
        InvalidInputError: an unknown name or figure, a number that is not finite and >= 0, or nothing for a candidate.
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InvalidInputError(
            f"{argument}: expected name -> Performance, or a mapping of its figures, got {shown(given)}"
        )
    meant = matched_once(argument, list(given), names)
    merged = dict(before)
    for name, own in given.items():
        if own is None:
            merged.pop(meant[name], None)
            continue
        if not isinstance(own, (Performance, Mapping)):
            raise InvalidInputError(
                f"{argument}[{name!r}]: expected a Performance, a mapping of its figures, or None, got {shown(own)}"
            )
        stated = performance_json(own) if isinstance(own, Performance) else own
        row = {key: _plain(value) for key, value in stated.items()}
        problem = performance_problem(row)
        if problem is not None:
            raise InvalidInputError(
                f"{argument}[{name!r}].{problem.key}: expected {problem.expected}, got {problem.got}"
            )
        old = merged.get(meant[name])
        new = performance_of(row)
        merged[meant[name]] = new if old is None else performance_of({**performance_json(old), **performance_json(new)})
    return read_only(merged)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, (np.integer, np.floating)) else value


def row_costs(
    tokens_out: npt.NDArray[np.floating[Any]],
    billed_tokens: npt.NDArray[np.uint32],
    candidates: Sequence[Candidate],
    prices: PriceList,
    weighing: Weighing | None = None,
    tokens_in: npt.NDArray[np.float32] | None = None,
) -> Array:
    """Return (rows, models) predicted cost of prompts at a price list: what `op_terms` folds for the op, in float64.

    Args:
        tokens_out: (rows, models), a column per candidate. billed_tokens: (rows,), by the bundle's tokenizer.
        weighing: of these candidates; None: the cost is in USD.
        tokens_in: (rows, models) by each candidate's own count; None: billed_tokens times its token_ratio.
    """
    rates = PriceTable([prices.prices[c.name] for c in candidates], [c.token_ratio for c in candidates])
    if weighing is not None:
        rates = weighing.folded(rates)
    # an answer is billed no more output tokens than its candidate can give
    most = np.array([np.inf if c.max_output_tokens is None else c.max_output_tokens for c in candidates], np.float64)
    return rates.cost(rates.counted(billed_tokens.astype(np.int64), tokens_in), np.minimum(tokens_out, most))
