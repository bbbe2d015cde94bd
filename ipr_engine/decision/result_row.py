"""A `ResultRow` tells who could answer one prompt: which candidates its request, their context windows and its policy leave."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult, largest
from ipr_engine.bundle import BundleSpec
from ipr_engine.policy.cost_weights import CostTerms
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.rules import UNSUPPORTED
from ipr_engine.request.row_inputs import RowInputs

_FLOAT = struct.Struct("=f")


class CandidateView(NamedTuple):
    """A `CandidateView` is one candidate of one decision. Money in USD for this prompt; tokens_in are by its own tokenizer.

    cost: what the policy trades against quality: cost_usd, or the weighted sum of its `cost_weights`; NaN where that is not known.
    """

    name: str
    family: str
    quality: float
    cost_usd: float
    cost: float
    tokens_in: float
    tokens_out: float
    allowed: bool
    feasible: bool
    chosen: bool
    excluded_because: str | None


class ResultRow:
    """A `ResultRow` is one row of a result, with what tells who could have been chosen; `Decision` reads the choice of it.

    Attributes:
        result, row: the answers of a run, and the position of this one among them.
        policy, bundle: those that decided.
        billed_tokens: tokens of the whole request by the bundle's tokenizer.
        inputs: what the request asks for and the caller gave.
    """

    __slots__ = ("_own", "billed_tokens", "bundle", "inputs", "policy", "result", "row")

    result: DecideResult
    row: int
    policy: Policy
    bundle: BundleSpec
    billed_tokens: int
    inputs: RowInputs
    _own: npt.NDArray[np.float32] | bytes | None  # bytes on the path of a plain text, which makes no array

    @property
    def own_tokens(self) -> npt.NDArray[np.float32] | None:
        """Return (models,) float32 input tokens by each candidate's own count.

        None where none was given and no candidate names its tokenizer.
        """
        own = self._own
        return np.frombuffer(own, np.float32) if isinstance(own, bytes) else own

    def input_tokens(self, m: int) -> float:
        """Return the input tokens of the whole request by the tokenizer of the candidate at this position."""
        own = self._own
        if own is None:
            return self.billed_tokens * self.bundle.candidates[m].token_ratio
        if isinstance(own, bytes):  # an array of it takes four times as long to make
            return float(_FLOAT.unpack_from(own, m * _FLOAT.size)[0])
        return float(own[m])

    @property
    def qualities(self) -> npt.NDArray[np.float32]:
        """Return (models,) float32 predicted quality of every candidate, allowed or not, in bundle order."""
        row: npt.NDArray[np.float32] = self.result.quality[self.row]
        return row

    @property
    def costs_usd(self) -> npt.NDArray[np.float32]:
        """Return (models,) float32 expected cost of this prompt in USD, in bundle order."""
        row: npt.NDArray[np.float32]
        if self.policy.weighing is None:
            row = self.result.cost_usd[self.row]
        else:
            billed, own, extra = np.array([self.billed_tokens]), self.own_tokens, self.inputs.extra_usd
            tokens = self.result.tokens_out[self.row][None]
            row = self.policy.usd(billed, None if own is None else own[None], tokens, extra)[0]
        return row

    @property
    def costs(self) -> npt.NDArray[np.float32]:
        """Return (models,) float32 what the policy trades against quality: `costs_usd`, or weighted sums, NaN where not known."""
        row: npt.NDArray[np.float32] = self.result.cost_usd[self.row]
        return row if self.policy.weighing is None else self.policy.weighing.known(row)

    def usd_of(self, m: int) -> float:
        """Return the expected cost of one candidate in USD."""
        policy = self.policy
        if policy.weighing is None:
            return self.result.cost_at(self.row, m)
        own, extra = self.own_tokens, self.inputs.extra_usd
        tokens = self.result.tokens_at(self.row, m)
        of_m = None if own is None else own[m], tokens, None if extra is None else extra[m]
        return policy.usd_of(m, self.billed_tokens, *of_m)

    def cost_terms_of(self, m: int, usd: float) -> CostTerms | None:
        """Return USD, seconds and Wh of one candidate that costs so much, where the policy weighs more than USD; else None."""
        weighing = self.policy.weighing
        if weighing is None:
            return None
        return weighing.terms(m, usd, self.input_tokens(m), self.result.tokens_at(self.row, m))

    @property
    def may_keep_out(self) -> bool:
        """Return whether this request may keep out a candidate that the policy allows."""
        own, limits = self._own, self.inputs.limits
        if own is None:
            return limits is not None or self.billed_tokens >= self.policy.surely_fits.billed
        most = largest(own) if isinstance(own, bytes) else float(own.max())
        if limits is None:
            return most >= self.policy.surely_fits.own
        stated = limits.max_tokens
        return bool(limits.excluded) or stated is None or not most + stated <= self.policy.least_window

    @property
    def by_support(self) -> bool:
        """Return whether the policy's candidate for prompts of little support answers, and not the plain decision."""
        result, row = self.result, self.row
        if result.cause_at(row) != UNSUPPORTED:
            return False
        to = self.policy.unsupported.candidate
        return to is None or to == self.bundle.candidates[result.index_at(row)].name

    @property
    def open_to(self) -> Sequence[str]:
        """Return who may be chosen, whatever this request asks for: under `unsupported="cheapest"` an operating point leaves out nobody."""
        policy = self.policy
        by_cost = policy.reserve and policy.unsupported.candidate is None and self.by_support
        return (*policy.allowed, *policy.reserve) if by_cost else policy.allowed

    def could_serve(self, names: Sequence[str]) -> bytes:
        """Return (models,) as bytes: who of these can serve this request."""
        candidates = self.bundle.candidates
        if names is self.policy.allowed and not self.may_keep_out:
            return bytes(candidate.name in names for candidate in candidates)
        return bytes(c.name in names and self.unable(m) is None for m, c in enumerate(candidates))

    @property
    def reserve(self) -> npt.NDArray[np.bool_]:
        """Return (models,) bool, the policy's reserve, less who cannot serve this request."""
        return np.frombuffer(self.could_serve(self.policy.reserve), np.bool_)

    @property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """Return (models,) bool, who could be chosen: the policy's mask, less who cannot serve this request."""
        mask = np.frombuffer(bytearray(self.could_serve(self.open_to)), np.bool_)
        if self.by_support:  # one that an operating point leaves out may be named for prompts of little support
            mask[self.result.index_at(self.row)] = True
        return mask

    def saved_usd(self, best: int | None, m: int) -> float | None:
        """Return what a candidate is predicted to cost less than another on this request: than its policy's `best_position`, say.

        None where that other one is not known, or could not serve this request.
        """
        if best is None or (self.may_keep_out and self.unable(best) is not None):
            return None
        if self.policy.weighing is None:  # as `usd_of` has it, without asking for each
            saved = self.result.cost_at(self.row, best) - self.result.cost_at(self.row, m)
        else:
            saved = self.usd_of(best) - self.usd_of(m)
        return saved if math.isfinite(saved) else None

    def unable(self, m: int) -> str | None:
        """Return why a candidate cannot serve this request, whatever the policy says; None where it can."""
        candidate, limits = self.bundle.candidates[m], self.inputs.limits
        if limits is not None and candidate.name in limits.excluded:
            return limits.excluded[candidate.name]
        window = candidate.context_window
        if window is None:
            return None
        prompt = self.input_tokens(m)
        stated = None if limits is None else limits.max_tokens
        answers = 1 if limits is None else limits.answers  # each answer has the window to itself
        output = self.result.tokens_at(self.row, m) / answers if stated is None else float(stated)
        # the second test stands for an output that is not known
        if not (prompt + output > window or prompt > window):  # an output that is not known, NaN, is not over
            return None
        if prompt > window:
            return f"prompt of about {prompt:.0f} tokens over its context window of {window}"
        return f"prompt of about {prompt:.0f} and output of {output:.0f} tokens over its context window of {window}"

    def excluded_because(self, m: int) -> str | None:
        """Return why a candidate could not be chosen; None where it could, and of the chosen one."""
        if m == self.result.index_at(self.row):  # also one that an operating point leaves out: see `allowed`
            return None
        return self.policy.exclusions.get(self.bundle.candidates[m].name) or self.unable(m)

    @property
    def excluded(self) -> dict[str, str]:
        """Return candidate -> why it could not be chosen.

        The policy's mask, a feature that the request needs, too long an answer asked for, or a context window too small.
        """
        if not self.may_keep_out and not self.policy.reserve:
            return dict(self.policy.exclusions)
        found = {candidate.name: self.excluded_because(m) for m, candidate in enumerate(self.bundle.candidates)}
        return {name: reason for name, reason in found.items() if reason is not None}

    @property
    def candidates(self) -> tuple[CandidateView, ...]:
        """Return every candidate, in bundle order, with what was predicted and why it could not be chosen."""
        result, row = self.result, self.row
        chosen, threshold = result.index_at(row), np.float32(result.threshold_at(row))
        allowed, qualities, usd, costs = self.allowed, self.qualities, self.costs_usd, self.costs
        tokens = result.tokens_out[row]
        return tuple(
            CandidateView(
                name=candidate.name,
                family=candidate.family,
                quality=float(qualities[m]),
                cost_usd=float(usd[m]),
                cost=float(costs[m]),
                tokens_in=self.input_tokens(m),
                tokens_out=float(tokens[m]),
                allowed=bool(allowed[m]),
                feasible=bool(allowed[m] and qualities[m] >= threshold),
                chosen=m == chosen,
                excluded_because=self.excluded_because(m),
            )
            for m, candidate in enumerate(self.bundle.candidates)
        )
