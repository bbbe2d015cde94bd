"""Random heads, policies and requests serve tests and benchmarks; the caller brings the random generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ipr_engine.decide import reference
from ipr_engine.decide.contract import DecidePlan, DecidePolicy, DecideResult, Heads

Rng = np.random.Generator

# Other implementations of decide by name, beside the instruction sets; whoever brings one puts it here.
IMPLEMENTATIONS: dict[str, Callable[[Request], Any]] = {}

# The packed forms of docs/decide.md, as keywords of make_heads. Sizes sit off the 16-lane edge.
FORMS: dict[str, dict[str, Any]] = {
    "linear": {},
    "linear_uncapped": {"cap": False},
    "linear_no_tokens": {"tokens": False},
    "trunk_one_unit": {"hidden": 1},
    "trunk_identity_no_skip": {"hidden": 64, "identity": True, "skip": False, "activation": "gelu"},
    "trunk_adapters": {"hidden": 64, "rank": 4, "activation": "silu"},
    "all": {"hidden": 33, "rank": 3, "identity": True},
    "forest": {"trees": 9, "depth": 3},
    "forest_all": {"hidden": 33, "rank": 3, "identity": True, "trees": 1, "depth": 5},
    "forest_wide": {"hidden": 20, "trees": 17, "depth": 4, "beyond": 5},
    "adapters_only": {"hidden": 17, "rank": 1, "trunk": False, "skip": False, "activation": "silu"},
}


def floats(rng: Rng, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def make_heads(
    rng: Rng, models: int, dim: int, *, hidden: int = 0, rank: int = 0, activation: str = "relu",
    skip: bool = True, trunk: bool = True, identity: bool = False, tokens: bool = True, cap: bool = True,
    trees: int = 0, depth: int = 0, beyond: int = 0,
) -> Heads:  # fmt: skip
    """Draw heads whose logits spread by about 1 on x of unit variance. beyond: columns of x that trees alone read."""
    parts: dict[str, Any] = {"bias": floats(rng, models)}
    dim, columns = max(1, dim - beyond), dim
    if skip:
        parts["skip"] = floats(rng, models, dim, scale=dim**-0.5)
    if hidden:
        parts["out"] = floats(rng, models, hidden, scale=hidden**-0.5)
        parts["activation"] = activation
        if trunk:
            parts["trunk"] = floats(rng, hidden, dim, scale=dim**-0.5)
        if identity:
            parts["identity"] = floats(rng, models, hidden)
        if rank:
            parts["up"] = floats(rng, models, hidden, rank, scale=rank**-0.5)
            parts["down"] = floats(rng, models, rank, dim, scale=dim**-0.5)
    if trees:
        nodes = (trees, 2**depth - 1)
        parts["dim"] = columns
        parts["tree_column"] = rng.integers(0, columns, nodes).astype(np.int32)
        parts["tree_threshold"] = np.where(rng.random(nodes) < 0.1, np.inf, rng.standard_normal(nodes)).astype(
            np.float32
        )
        parts["tree_leaf"] = floats(rng, trees, 2**depth, models, scale=trees**-0.5)
    if tokens:
        parts["len_skip"] = floats(rng, models, dim, scale=0.5 * dim**-0.5)
        parts["len_bias"] = 5 + floats(rng, models)
        if cap:
            parts["len_cap"] = rng.integers(200, 2000, models).astype(np.float32)
    return Heads(**parts)


def make_policy(rng: Rng, models: int, rule: str = "minmax", tau: float = 0.3, worth: float = 0.0) -> dict[str, Any]:
    """Return keywords of DecidePolicy and of reference.decide: section 4's rules at list prices of a plausible spread."""
    alpha_hi, alpha_lo, offset = {
        "minmax": (1 - tau, tau, 0.0),
        "max": (1 - tau, 0.0, -0.02),
        "fixed": (0.0, 0.0, (1 - tau) * 0.8 + tau * 0.3),
    }[rule]
    in_rate = np.exp(rng.normal(0, 1.5, models)) * 1e-6
    numbers = {"alpha_hi": alpha_hi, "alpha_lo": alpha_lo, "offset": offset, "worth": worth}
    return {
        **{name: float(np.float32(value)) for name, value in numbers.items()},
        "in_rate": in_rate.astype(np.float32),
        "out_rate": (in_rate * rng.uniform(2, 8, models)).astype(np.float32),
        "fixed_usd": rng.uniform(0, 1e-4, models).astype(np.float32),
        "allowed": np.ones(models, bool),
    }


@dataclass(frozen=True)
class Request:
    """A `Request` is one call: everything that DecidePlan.run and reference.decide need."""

    heads: Heads
    policy: dict[str, Any]
    x: np.ndarray
    billed_tokens: Any
    tokens_out: np.ndarray | None = None
    extra_usd: np.ndarray | None = None
    allowed: np.ndarray | None = None
    _plans: dict[str, DecidePlan] = field(default_factory=dict)

    def run(self, isa: str = "auto") -> DecideResult:
        if isa in IMPLEMENTATIONS:
            made: DecideResult = IMPLEMENTATIONS[isa](self)
            return made
        if isa not in self._plans:
            self._plans[isa] = DecidePlan(self.heads, isa)
        plan = self._plans[isa]
        optional = {"tokens_out": self.tokens_out, "extra_usd": self.extra_usd, "allowed": self.allowed}
        return plan.run(self.x, DecidePolicy(plan, **self.policy), self.billed_tokens, **optional)

    def reference(self, dtype: Any = np.float64) -> reference.ReferenceDecisions:
        optional = {"extra_usd": self.extra_usd, "allowed": self.allowed}
        given = {name: value for name, value in optional.items() if value is not None}
        return reference.decide(
            self.heads, self.policy, self.x, self.billed_tokens, self.tokens_out, **given, dtype=dtype
        )

    def but(self, **changes: Any) -> Request:
        plans = {} if "heads" in changes else self._plans
        return replace(self, **changes, _plans=plans)

    def with_policy(self, **changes: Any) -> Request:
        return self.but(policy={**self.policy, **changes})


def make_request(
    rng: Rng, batch: int, models: int, dim: int, form: str = "linear", *, masked: bool = False, **policy: Any
) -> Request:
    """Draw a request with every optional input that `form` allows; `masked` forbids about a third of all (row, model)."""
    heads = make_heads(rng, models, dim, **FORMS[form])
    return Request(
        heads=heads,
        policy=make_policy(rng, models, **policy),
        x=floats(rng, batch, dim),
        billed_tokens=rng.integers(1, 4000, batch).astype(np.float32),
        tokens_out=None if heads.len_skip is not None else rng.uniform(1, 900, (batch, models)).astype(np.float32),
        extra_usd=rng.uniform(-1e-4, 1e-4, (batch, models)).astype(np.float32) if masked else None,
        allowed=rng.random((batch, models)) < 0.67 if masked else None,
    )


def of_candidates(heads: Heads, some: np.ndarray) -> Heads:
    """Return the heads of these candidates, by position, in this order."""
    shared = ("trunk", "tree_column", "tree_threshold", "activation", "dim")
    taken: dict[str, Any] = {
        name: np.ascontiguousarray(value[..., some] if name == "tree_leaf" else value[some])
        for name, value in vars(heads).items()
        if name not in shared and value is not None
    }
    return replace(heads, **taken)


PARTS = ("index", "quality", "tokens_out", "cost_usd", "threshold", "gap", "status", "cause")


def bytes_of(result: DecideResult) -> dict[str, bytes]:
    """Return every output, to compare bit for bit."""
    return {part: getattr(result, part).tobytes() for part in PARTS}


def row_bytes(result: DecideResult, row: int) -> dict[str, bytes]:
    return {part: getattr(result, part)[row : row + 1].tobytes() for part in PARTS}
