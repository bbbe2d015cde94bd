"""These peers do the work of decide, one prompt at a time, as one would write it with care in numpy and in torch.

Both fold everything that multiplies x into one matrix ahead of time, compute in float32 and give all outputs of decide.
`choice_only` leaves out gap, status and cause, which a hand-written router would hardly compute.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ipr_engine.decide.contract import Heads


def folded(heads: Heads) -> tuple[np.ndarray, dict[str, slice]]:
    """Return one matrix for x, and where each part's rows are in it."""
    parts = {"skip": heads.skip, "len": heads.len_skip, "trunk": heads.trunk}
    if heads.down is not None:
        parts["down"] = heads.down.reshape(-1, heads.down.shape[-1])
    rows, at = {}, 0
    for name, part in parts.items():
        if part is not None:
            rows[name] = slice(at, at + len(part))
            at += len(part)
    return np.concatenate([part for part in parts.values() if part is not None]), rows


class NumpyDecide:
    """A `NumpyDecide` computes linear heads, or relu heads with a trunk and adapters; tokens predicted and capped."""

    def __init__(self, heads: Heads, policy: dict[str, Any], *, choice_only: bool = False) -> None:
        self.by_x, self.rows = folded(heads)
        assert heads.len_cap is not None
        self.heads, self.policy, self.choice_only, self.len_cap = heads, policy, choice_only, heads.len_cap
        if heads.up is not None:
            self.up = np.ascontiguousarray(heads.up.transpose(0, 2, 1))  # (models, rank, hidden)

    def __call__(self, x: np.ndarray, billed_tokens: float) -> tuple[Any, ...]:
        heads, policy, rows = self.heads, self.policy, self.rows
        dots = self.by_x @ x
        logit = dots[rows["skip"]] + heads.bias
        if heads.out is not None:
            d = dots[rows["down"]].reshape(len(logit), 1, -1)  # (models, 1, rank)
            h = np.matmul(d, self.up)[:, 0] + dots[rows["trunk"]]  # (models, hidden)
            logit += np.einsum("mh,mh->m", np.maximum(h, 0, out=h), heads.out)
        quality = 1 / (1 + np.exp(-logit))
        tokens = np.minimum(np.exp(dots[rows["len"]] + heads.len_bias), self.len_cap)
        cost = policy["fixed_usd"] + (policy["in_rate"] * np.float32(billed_tokens) + policy["out_rate"] * tokens)
        objective = cost - np.float32(policy["worth"]) * quality if policy["worth"] else cost
        allowed = policy["allowed"]
        every = allowed.all()

        def level(candidates: np.ndarray) -> tuple[float, float]:
            hi = candidates.max()
            return policy["alpha_hi"] * hi + policy["alpha_lo"] * candidates.min() + policy["offset"], hi

        wanted, hi = level(quality if every else quality[allowed])
        threshold = min(wanted, hi)
        feasible = quality >= threshold
        if not every:
            feasible &= allowed
        index = np.where(feasible, objective, np.inf).argmin()
        if self.choice_only:
            return index, quality, tokens, cost, threshold

        if not (np.isfinite(logit).all() and np.isfinite(cost).all()):
            return -1, quality, tokens, cost, np.nan, np.nan, 1, 0
        others = allowed.copy()
        others[index] = False
        best = quality[index] == hi
        stay = min(level(quality[others])) if best else threshold
        needed = np.maximum(threshold - quality[others], 0)
        more = objective[others] - objective[index]
        needed = np.maximum(needed, np.where(more > 0, more / policy["worth"] if policy["worth"] else np.inf, 0))
        gap = max(min(quality[index] - stay, needed.min()), 0.0)
        below = policy["alpha_hi"] == policy["alpha_lo"] == 0 and wanted > hi
        return index, quality, tokens, cost, threshold, gap, 0, 2 if below else 3 if best else 4


class TorchDecide:
    """A `TorchDecide` does the work of `NumpyDecide` in eager torch, without autograd."""

    def __init__(self, heads: Heads, policy: dict[str, Any], *, choice_only: bool = False) -> None:
        import torch

        self.choice_only = choice_only

        self.torch: Any = torch
        torch.set_num_threads(1)  # nothing here is large enough to share
        by_x, self.rows = folded(heads)

        def tensor(array: Any) -> Any:
            return torch.from_numpy(np.ascontiguousarray(array))

        self.by_x = tensor(by_x)
        self.bias, self.len_bias, self.len_cap = map(tensor, (heads.bias, heads.len_bias, heads.len_cap))
        self.in_rate, self.out_rate, self.fixed_usd, self.allowed = (
            tensor(policy[name]) for name in ("in_rate", "out_rate", "fixed_usd", "allowed")
        )
        self.policy, self.every = policy, bool(policy["allowed"].all())
        self.hidden = heads.out is not None
        if heads.up is not None:
            self.up, self.out = tensor(heads.up.transpose(0, 2, 1)), tensor(heads.out)

    def __call__(self, x: Any, billed_tokens: float) -> tuple[Any, ...]:
        with self.torch.inference_mode():
            return self._run(x, billed_tokens)

    def _run(self, x: Any, billed_tokens: float) -> tuple[Any, ...]:
        torch, policy, rows = self.torch, self.policy, self.rows
        dots = torch.mv(self.by_x, x)
        logit = dots[rows["skip"]] + self.bias
        if self.hidden:
            d = dots[rows["down"]].view(len(logit), 1, -1)
            h = torch.bmm(d, self.up)[:, 0].add_(dots[rows["trunk"]]).relu_()
            logit += (h * self.out).sum(1)
        quality = logit.sigmoid()
        tokens = torch.minimum((dots[rows["len"]] + self.len_bias).exp_(), self.len_cap)
        cost = self.fixed_usd + (self.in_rate * billed_tokens + self.out_rate * tokens)
        objective = cost - policy["worth"] * quality if policy["worth"] else cost

        def level(candidates: Any) -> tuple[Any, Any]:
            lo, hi = candidates.aminmax()
            return policy["alpha_hi"] * hi + policy["alpha_lo"] * lo + policy["offset"], hi

        wanted, hi = level(quality if self.every else quality[self.allowed])
        threshold = torch.minimum(wanted, hi)
        feasible = quality >= threshold
        if not self.every:
            feasible &= self.allowed
        index = int(torch.where(feasible, objective, torch.inf).argmin())
        if self.choice_only:
            return index, quality, tokens, cost, threshold

        if not (logit.isfinite().all() and cost.isfinite().all()):
            return -1, quality, tokens, cost, np.nan, np.nan, 1, 0
        others = self.allowed.clone()
        others[index] = False
        best = bool(quality[index] == hi)
        stay = torch.minimum(*level(quality[others])) if best else threshold
        needed = (threshold - quality[others]).clamp_(min=0)
        more = objective[others] - objective[index]
        needed = torch.maximum(
            needed, torch.where(more > 0, more / policy["worth"] if policy["worth"] else torch.inf, 0)
        )
        gap = max(min(float(quality[index] - stay), float(needed.min())), 0.0)
        below = policy["alpha_hi"] == policy["alpha_lo"] == 0 and bool(wanted > hi)
        return index, quality, tokens, cost, float(threshold), gap, 0, 2 if below else 3 if best else 4
