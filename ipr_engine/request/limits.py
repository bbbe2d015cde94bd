"""This module tells what keeps a candidate from a single request: its context window, its most output tokens, a feature that it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import BundleSpec, Candidate, HeadsSpec
from ipr_engine.decide.contract import Heads
from ipr_engine.prompts.parsed import Needs
from ipr_engine.tokens.token_profile import TokenProfile

Floats = npt.NDArray[np.float64]
NONE: Mapping[str, str] = {}


class RowLimits(NamedTuple):
    """A `RowLimits` says what one request asks for.

    Attributes:
        excluded: candidate -> why it may not be chosen for this request, its context window apart.
        max_tokens: most output tokens of one answer that the request states, where the caller gives no tokens_out; else None.
        answers: how many answers are billed.
    """

    excluded: Mapping[str, str] = NONE
    max_tokens: int | None = None
    answers: int = 1


PLAIN = RowLimits()


@dataclass(frozen=True, eq=False)
class RequestLimits:
    """A `RequestLimits` says what the requests of a batch ask for, as the router takes it.

    Attributes:
        rows: what each asks for, and why it keeps out whom.
        allowed: (batch, models), who may be chosen for a row; None: everyone.
        max_tokens: (batch,) int64, -1 where nothing is stated; None: nowhere.
        answers: (batch,) int64, how many are billed; None: one of every row.
    """

    rows: tuple[RowLimits, ...]
    allowed: npt.NDArray[np.bool_] | None = None
    max_tokens: npt.NDArray[np.int64] | None = None
    answers: npt.NDArray[np.int64] | None = None

    def at(self, rows: npt.NDArray[Any]) -> RequestLimits:
        """Return the same for these rows."""
        return RequestLimits(
            tuple(self.rows[row] for row in rows.tolist()),
            None if self.allowed is None else np.ascontiguousarray(self.allowed[rows]),
            None if self.max_tokens is None else np.ascontiguousarray(self.max_tokens[rows]),
            None if self.answers is None else np.ascontiguousarray(self.answers[rows]),
        )


def request_limits(
    bundle: BundleSpec, needs: Sequence[Needs | None] | None, tokens_out: npt.NDArray[np.float32] | None, batch: int
) -> RequestLimits | None:
    """Return what keeps candidates from these requests; None where they ask for nothing.

    Args:
        needs: one a request, or None: nothing is known of them.
        tokens_out: (models,) or (batch, models), output tokens that the caller expects.
    """
    if tokens_out is None and (needs is None or not any(needs)):
        return None
    asked = [None] * batch if needs is None else list(needs)
    expected = None if tokens_out is None else np.broadcast_to(tokens_out, (batch, len(bundle.candidates)))
    bounded = expected is not None and any(candidate.max_output_tokens is not None for candidate in bundle.candidates)
    rows = []
    for row, need in enumerate(asked):
        if need is None and not bounded:
            rows.append(PLAIN)
            continue
        stated = None if need is None or expected is not None else need.max_output_tokens
        outputs = (
            [None if stated is None else float(stated)] * len(bundle.candidates) if expected is None else expected[row]
        )
        found = {
            candidate.name: reason
            for candidate, output in zip(bundle.candidates, outputs, strict=True)
            if (reason := _why_not(candidate, need, output)) is not None
        }
        rows.append(RowLimits(found or NONE, stated, 1 if need is None else need.answers))
    allowed = max_tokens = answers = None
    if any(row.excluded for row in rows):
        allowed = np.array([[name not in row.excluded for name in bundle.names] for row in rows], np.bool_)
    if any(row.max_tokens is not None for row in rows):
        max_tokens = np.array([-1 if row.max_tokens is None else row.max_tokens for row in rows], np.int64)
    if any(row.answers > 1 for row in rows):
        answers = np.array([row.answers for row in rows], np.int64)
    return RequestLimits(tuple(rows), allowed, max_tokens, answers)


def lacking(candidate: Candidate, needs: Needs) -> list[str]:
    """Return the features that a request needs and the candidate lacks."""
    return sorted(feature for feature in needs.features if feature not in candidate.features)


def _why_not(candidate: Candidate, needs: Needs | None, output: float | None) -> str | None:
    missing = [] if needs is None else lacking(candidate, needs)
    if needs is not None and missing:
        return f"lacks {' and '.join(f'{feature}, needed by {needs.features[feature]!r}' for feature in missing)}"
    most = candidate.max_output_tokens
    if output is not None and most is not None and output > most:
        return f"asked for {output:g} output tokens, over its most of {most}"
    return None


def most_output(bundle: BundleSpec, heads: HeadsSpec) -> Floats:
    """Return (models,) what no prediction of output tokens by these heads is over; infinity where nothing bounds it."""
    most = [candidate.max_output_tokens for candidate in bundle.candidates]
    stated = np.array([np.inf if tokens is None else tokens for tokens in most], np.float64)
    caps = heads.tensors.get("len_cap")
    return stated if caps is None else np.minimum(stated, caps)


def capped_heads(bundle: BundleSpec, heads: HeadsSpec) -> Heads:
    """Return the heads to plan: no candidate is predicted more output tokens than it can give."""
    tensors = dict(heads.tensors)
    if "len_skip" in tensors and any(candidate.max_output_tokens is not None for candidate in bundle.candidates):
        tensors["len_cap"] = np.minimum(most_output(bundle, heads), np.finfo(np.float32).max).astype(np.float32)
    return Heads(**tensors, activation=heads.activation, tie_rank=bundle.tie_rank)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class OwnTokenizers:
    """An `OwnTokenizers` holds the profiles that candidates of a bundle name.

    Attributes:
        profiles: the distinct ones. of_model: (models,), a position in them, -1 for a candidate that names none.
    """

    profiles: tuple[TokenProfile, ...]
    of_model: tuple[int, ...]

    @classmethod
    def of(cls, bundle: BundleSpec) -> OwnTokenizers | None:
        """Return those of a bundle; None where no candidate names one."""
        named = [candidate.tokenizer for candidate in bundle.candidates]
        distinct = tuple(dict.fromkeys(profile for profile in named if profile is not None))
        if not distinct:
            return None
        return cls(distinct, tuple(-1 if profile is None else distinct.index(profile) for profile in named))

    def to_router(self) -> dict[str, Any]:
        """Return what `_C.Router` takes of them."""
        return {
            "coefficients": np.array([profile.coefficients for profile in self.profiles], np.float64),
            "per_request": np.array([profile.per_request for profile in self.profiles], np.float64),
            "tokenizer_of": list(self.of_model),
        }


def own_tokens(
    candidates: Sequence[Candidate], terms: Floats, billed: npt.NDArray[Any]
) -> npt.NDArray[np.float32] | None:
    """Return (rows, models) input tokens by each candidate's own count, as the router's `own_tokens`; None where nobody names a tokenizer.

    Args:
        terms: (rows, terms) of the texts of each request, finite. billed: (rows,) by the bundle's tokenizer.
    """
    if all(candidate.tokenizer is None for candidate in candidates):
        return None
    counted = [
        billed * candidate.token_ratio if candidate.tokenizer is None else candidate.tokenizer.estimate(terms)
        for candidate in candidates
    ]
    return np.column_stack(counted).astype(np.float32)


class ContextWindows:
    """A `ContextWindows` holds the windows of a bundle's candidates, as csrc/src/router.cpp holds requests against them.

    Attributes:
        windows, ratios: (models,) float64; no limit is infinite.
        tokenizers: of the candidates that name one; None where nobody does.
    """

    def __init__(self, bundle: BundleSpec) -> None:
        windows = [candidate.context_window for candidate in bundle.candidates]
        self.windows: Floats = np.array([np.inf if window is None else window for window in windows], np.float64)
        self.ratios: Floats = np.array([candidate.token_ratio for candidate in bundle.candidates], np.float64)
        self.tokenizers = OwnTokenizers.of(bundle)

    def fit(
        self, billed: npt.NDArray[np.int64], output: npt.NDArray[Any], own: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return (rows, models): whose window holds the prompt and its output; output is (rows, models) or (rows, 1).

        own: (rows, models), the prompt's tokens by each candidate's own count; None: billed * token_ratio.
        """
        prompt = billed.astype(np.float64)[:, None] * self.ratios if own is None else own.astype(np.float64)
        over: npt.NDArray[np.bool_] = (prompt > self.windows) | (prompt + output > self.windows)
        return ~over  # an output of NaN adds nothing: its cost fails the row

    def within(
        self,
        billed: npt.NDArray[np.int64],
        tokens_out: npt.NDArray[np.float32],
        max_tokens: npt.NDArray[np.int64] | None,
        answers: npt.NDArray[np.int64] | None = None,
        own: npt.NDArray[np.float32] | None = None,
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Return who fits, and the output tokens to decide with, both (rows, models).

        Args:
            tokens_out: (rows, models) of one answer, given or predicted.
            max_tokens: (rows,) where predicted, -1 for not stated; None: nowhere. answers: (rows,); None: one of every row.
            own: as of `fit`.
        """
        fits, tokens = self.fit(billed, tokens_out, own), tokens_out
        if max_tokens is not None:
            stated = max_tokens[:, None]
            cut = (stated >= 0) & (tokens_out > stated)
            fits = self.fit(billed, np.where(stated >= 0, stated, tokens_out), own)
            tokens = np.where(cut, stated, tokens_out).astype(np.float32)
        if answers is not None:
            tokens = tokens * answers[:, None].astype(np.float32)
        return fits, tokens


class SurelyFits(NamedTuple):
    """Input tokens below which a prompt surely fits every allowed candidate's window, whatever output is predicted.

    billed: by the bundle's tokenizer. own: by the candidates' own, the greatest of their counts.
    """

    billed: float
    own: float


def surely_fits(bundle: BundleSpec, allowed: Sequence[str]) -> SurelyFits:
    """Return what surely fits these candidates of a bundle, by its heads of either tier."""
    again = bundle.escalation_heads
    deciding = [bundle.quality_heads, *([] if again is None else [again])]
    most = np.max([most_output(bundle, heads) for heads in deciding], axis=0)
    limits = [
        (candidate.context_window - most[m], candidate.token_ratio)
        for m, candidate in enumerate(bundle.candidates)
        if candidate.context_window is not None and candidate.name in allowed
    ]
    return SurelyFits(
        billed=float((1 - 1e-9) * min((own / ratio for own, ratio in limits), default=np.inf)),
        own=float((1 - 1e-6) * min((own for own, _ in limits), default=np.inf)),  # counts are float32
    )
