"""The peers of decide are what one would write in torch: all candidates' products in one matrix, then a few operators.

They give quality, tokens, cost and choice, and leave out gap, cause, status and ties by name: less work than decide does.
"""

from __future__ import annotations

from typing import Any

import torch

from ipr_engine.decide.contract import Heads


def _on(device: str, array: Any) -> Any:
    return torch.from_numpy(array).to(device)


class TorchDecideRows:
    """`run(x, billed)` computes linear heads, or relu heads with a trunk and an identity; tokens predicted and capped."""

    def __init__(self, heads: Heads, policy: dict[str, Any], device: str) -> None:
        import numpy as np

        self.models = len(heads.bias)
        parts = [part for part in (heads.skip, heads.len_skip, heads.trunk) if part is not None]
        self.by_x = _on(device, np.concatenate(parts).T.copy())  # (dim, rows)
        self.bias, self.len_bias, self.len_cap = (
            _on(device, part) for part in (heads.bias, heads.len_bias, heads.len_cap)
        )
        self.identity, self.out = (None if part is None else _on(device, part) for part in (heads.identity, heads.out))
        self.in_rate, self.out_rate, self.fixed = (
            _on(device, policy[name]) for name in ("in_rate", "out_rate", "fixed_usd")
        )
        self.allowed = _on(device, policy["allowed"])
        self.alpha_hi, self.alpha_lo, self.offset, self.worth = (
            float(policy[name]) for name in ("alpha_hi", "alpha_lo", "offset", "worth")
        )

    def run(self, x: Any, billed: Any) -> tuple[Any, ...]:
        """Map x (batch, dim), billed (batch,) to index (batch,), quality, tokens, cost (batch, models), threshold (batch,)."""
        models = self.models
        dots = x @ self.by_x
        logit = dots[:, :models] + self.bias
        if self.out is not None:
            h = torch.relu(dots[:, None, 2 * models :] + self.identity)  # (batch, models, hidden)
            logit = logit + (h * self.out).sum(-1)
        quality = torch.sigmoid(logit)
        tokens = torch.minimum(torch.exp(dots[:, models : 2 * models] + self.len_bias), self.len_cap)
        cost = self.fixed + (self.in_rate * billed[:, None] + self.out_rate * tokens)
        hi = quality.masked_fill(~self.allowed, -torch.inf).amax(1)
        lo = quality.masked_fill(~self.allowed, torch.inf).amin(1)
        threshold = torch.minimum(self.alpha_hi * hi + self.alpha_lo * lo + self.offset, hi)
        feasible = self.allowed & (quality >= threshold[:, None])
        index = (cost - self.worth * quality).masked_fill(~feasible, torch.inf).argmin(1)
        return index, quality, tokens, cost, threshold


class GemmArgmin:
    """A `GemmArgmin` is the least that could be called a router: one matrix product and an argmin over it."""

    def __init__(self, heads: Heads, device: str) -> None:
        self.weights, self.bias = _on(device, heads.skip.T.copy()), _on(device, heads.bias)  # type: ignore[union-attr]

    def run(self, x: Any, billed: Any) -> tuple[Any, ...]:
        return (torch.addmm(self.bias, x, self.weights).argmin(1),)
