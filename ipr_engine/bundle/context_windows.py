"""This file holds the limits of candidates: context windows, most output tokens, and the tokenizers that count for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.spec import Candidate, HeadsSpec
from ipr_engine.decide.contract import Heads
from ipr_engine.tokens.token_profile import TokenProfile

Floats = npt.NDArray[np.float64]


def most_output(candidates: Sequence[Candidate], heads: HeadsSpec) -> Floats:
    """Return (models,) bounds on predicted output tokens: a candidate's own most and the heads' cap; infinity where there is neither."""
    most = [candidate.max_output_tokens for candidate in candidates]
    stated = np.array([np.inf if tokens is None else tokens for tokens in most], np.float64)
    caps = heads.tensors.get("len_cap")
    return stated if caps is None else np.minimum(stated, caps)


def capped_heads(candidates: Sequence[Candidate], heads: HeadsSpec, tie_rank: npt.NDArray[np.int32], dim: int) -> Heads:
    """Return the heads to plan: no candidate is predicted more output tokens than it can give. dim: of their encoder."""
    # A shallow copy: the bundle's own tensors are read-only and stay.
    tensors = dict(heads.tensors)
    if "len_skip" in tensors and any(candidate.max_output_tokens is not None for candidate in candidates):
        tensors["len_cap"] = np.minimum(most_output(candidates, heads), np.finfo(np.float32).max).astype(np.float32)
    return Heads(**tensors, activation=heads.activation, tie_rank=tie_rank, dim=dim)  # type: ignore[arg-type]


class OwnTokenizers(NamedTuple):
    """An `OwnTokenizers` holds the profiles that candidates name.

    Attributes:
        profiles: the distinct ones. of_model: (models,), a position in them, -1 for a candidate that names none.
    """

    profiles: tuple[TokenProfile, ...]
    of_model: tuple[int, ...]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> OwnTokenizers | None:
        """Return the tokenizers that candidates name; None where none names one."""
        named = [candidate.tokenizer for candidate in candidates]
        distinct = tuple(dict.fromkeys(profile for profile in named if profile is not None))
        if not distinct:
            return None
        return cls(distinct, tuple(-1 if profile is None else distinct.index(profile) for profile in named))

    def to_router(self) -> dict[str, Any]:
        """Return the arguments of `_C.Router` that say who counts own tokens."""
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
    # one (rows,) column a candidate
    counted = [
        billed * candidate.token_ratio if candidate.tokenizer is None else candidate.tokenizer.estimate(terms)
        for candidate in candidates
    ]
    return np.column_stack(counted).astype(np.float32)


class ContextWindows:
    """A `ContextWindows` holds the windows of candidates, as csrc/src/router.cpp holds requests against them.

    Attributes:
        windows, ratios: (models,) float64; no limit is infinite.
        tokenizers: of the candidates that name one; None where nobody does.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        windows = [candidate.context_window for candidate in candidates]
        self.windows: Floats = np.array([np.inf if window is None else window for window in windows], np.float64)
        self.ratios: Floats = np.array([candidate.token_ratio for candidate in candidates], np.float64)
        self.tokenizers = OwnTokenizers.of(candidates)

    def fit(
        self, billed: npt.NDArray[np.int64], output: npt.NDArray[Any], own: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return (rows, models): whose window holds the prompt and its output; output is (rows, models) or (rows, 1).

        own: (rows, models), the prompt's tokens by each candidate's own count; None: billed * token_ratio.
        """
        # (rows, models)
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
            stated = max_tokens[:, None]  # (rows, 1)
            # Whoever states a limit may fill it: the window must hold all of it. The cost is of the smaller of the two.
            cut = (stated >= 0) & (tokens_out > stated)
            fits = self.fit(billed, np.where(stated >= 0, stated, tokens_out), own)
            tokens = np.where(cut, stated, tokens_out).astype(np.float32)
        if answers is not None:
            # The window holds each answer alone; the bill has all of them.
            tokens = tokens * answers[:, None].astype(np.float32)
        return fits, tokens


class SurelyFits(NamedTuple):
    """A `SurelyFits` holds the input tokens below which a prompt fits every allowed candidate's window, whatever output is predicted.

    billed: by the bundle's tokenizer. own: by the candidates' own, the greatest of their counts.
    """

    billed: float
    own: float


def least_window(candidates: Sequence[Candidate], allowed: Sequence[str]) -> float:
    """Return the smallest context window of the allowed ones of these candidates; infinity where none has any."""
    windows = [candidate.context_window for candidate in candidates if candidate.name in allowed]
    return min((float(window) for window in windows if window is not None), default=float("inf"))


def surely_fits(candidates: Sequence[Candidate], deciding: Sequence[HeadsSpec], allowed: Sequence[str]) -> SurelyFits:
    """Return the input tokens that surely fit the allowed ones of these candidates, by any of the deciding heads."""
    most = np.max([most_output(candidates, heads) for heads in deciding], axis=0)  # (models,)
    limits = [
        (candidate.context_window - most[m], candidate.token_ratio)
        for m, candidate in enumerate(candidates)
        if candidate.context_window is not None and candidate.name in allowed
    ]
    # Both bounds are a little low: a product of floats may end just above what it stands for.
    return SurelyFits(
        billed=float((1 - 1e-9) * min((own / ratio for own, ratio in limits), default=np.inf)),
        own=float((1 - 1e-6) * min((own for own, _ in limits), default=np.inf)),  # counts are float32
    )
