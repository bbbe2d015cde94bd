"""An `Overview` gathers what the page shows: totals, candidates, the quality-cost curve, upstreams, and the last decisions."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

import numpy as np

from ipr_engine.bundle import BundleSpec
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.promise import point_at, usd_at
from ipr_engine.policy.unsupported import mean_qualities
from ipr_engine.request.controls import NO_CONTROLS
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.decided import Question
from ipr_engine.server.decider import Decider
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.request_formats import FORMATS, RequestFormat
from ipr_engine.server.server_config import ServerConfig, Tenant
from ipr_engine.server.server_engine import ServerEngine
from ipr_engine.server.server_metrics import SHARED, MetricSample
from ipr_engine.server.shadow import Shadow
from ipr_engine.server.upstreams import Upstreams

OF_PATH = frozenset({"prices", "cost_weights", "performance", "escalate_below"})
"""Options of a policy that tau's path depends on, besides the candidates."""
CURVE_TAUS = tuple(step / 100 for step in range(101))  # those of the page's slider


class Overview:
    """An `Overview` answers `GET /ipr/overview` of one worker. A tenant is told of its own requests alone."""

    def __init__(
        self, config: ServerConfig, decider: Decider, upstreams: Upstreams | None, shadow: Shadow | None
    ) -> None:
        self._config = config
        self._decider = decider
        self._upstreams = upstreams
        self._shadow = shadow
        self._worker = os.urandom(8).hex()
        self._curves: dict[tuple[str, str | None], tuple[AskedPolicy, dict[str, Any]]] = {}

    async def of(self, tenant: Tenant, form: RequestFormat | None = None) -> dict[str, Any]:
        """Return all of it as plain JSON types; what takes long is done in a thread.

        form: of which requests candidates and curve are told; None: the first that is spoken, where upstreams speak different ones.
        """
        open_to = await self._open_to(tenant)
        formats = _told_apart(
            [] if self._upstreams is None else [self._upstreams.targets[name].formats for name in open_to]
        )
        if formats and form is None:
            form = FORMATS[formats[0]]
        asked: dict[str, AskedPolicy | str] = {}
        for model in self._config.models:
            try:
                asked[model] = await self._decider.book.of(Question(None, NO_CONTROLS, tenant, model, form))
            except RefusedError as refusal:  # a bundle that was swapped in may not suit the config
                asked[model] = refusal.message
        self._decider.afterwards.done()
        of_format = None if form is None else form.name
        found = await asyncio.to_thread(self._gathered, tenant, asked, open_to, of_format)
        return {**found, "formats": formats, "format": of_format}

    async def _open_to(self, tenant: Tenant) -> list[str]:
        """Return the candidates with an upstream that a tenant's requests may reach."""
        if self._upstreams is None:
            return []
        try:
            asked = await self._decider.book.of(Question(None, NO_CONTROLS, tenant, ""))
        except RefusedError:  # a bundle that was swapped in may not suit the config
            return []
        return [name for name in self._upstreams.targets if name in asked.policy.allowed]

    def _gathered(
        self, tenant: Tenant, asked: Mapping[str, AskedPolicy | str], open_to: Sequence[str], form: str | None
    ) -> dict[str, Any]:
        decider, engine = self._decider, self._decider.engine
        first = next(iter(asked.values()))
        samples = decider.metrics.samples()
        looked = decider.recent.look(tenant.name)
        return {
            "now": time(),
            "since": _sum(samples, "ipr_start_time_seconds"),
            "worker": self._worker,
            "several_workers": bool(os.environ.get(SHARED)),
            "tenant": tenant.name if self._config.tenants else None,
            "gateway": self._upstreams is not None,
            "bundle": {
                "hash": engine.bundle.hash,
                "swaps": engine.counters().swaps,  # of this worker: each swaps for itself
                "swap_failures": decider.metrics.swaps_failed,
            },
            "models": {name: _operating(found) for name, found in asked.items()},
            **self._candidates(tenant, form, first, engine),
            "totals": self._totals(tenant, samples),
            "upstreams": self._health(samples, open_to),
            "shadow": self._beside(samples),
            "recent": {"decisions": looked.decisions, "unread": looked.unread},
        }

    def _candidates(
        self, tenant: Tenant, form: str | None, asked: AskedPolicy | str, engine: ServerEngine
    ) -> dict[str, Any]:
        """Return the candidates and tau's path over them, computed once for a policy."""
        if isinstance(asked, str):
            return {"candidates": [{"name": name} for name in engine.bundle.names], "curve": None, "no_curve": asked}
        kept = self._curves.get((tenant.name, form))
        if kept is None or kept[0] is not asked:
            kept = self._curves[tenant.name, form] = asked, _candidates_and_curve(asked, engine)
        return kept[1]

    def _totals(self, tenant: Tenant, samples: list[MetricSample]) -> dict[str, Any]:
        """Return what was counted since the start, of all workers."""
        own = [sample for sample in samples if sample.labels.get("tenant") == tenant.name]
        replies: Counter[str] = Counter()
        for sample in own:
            if sample.name == "ipr_requests_total" and sample.labels["path"].startswith("/v1/"):
                replies[sample.labels["status"]] += int(sample.value)
        routed = self._decider.recent.routed(tenant.name)
        return {
            "routed": [[candidate, cause, count] for (candidate, cause), count in routed.items()],
            "cost_usd": _sum(own, "ipr_cost_usd_total"),
            "saved_usd": _sum(own, "ipr_saved_usd"),
            "replies": replies,
            "cut": int(_sum(own, "ipr_streams_cut_total")),
        }

    def _health(self, samples: list[MetricSample], open_to: Sequence[str]) -> list[dict[str, Any]]:
        """Return the state of upstreams. A tenant is told of those that it may reach, and not of attempts, which are everybody's."""
        if self._upstreams is None:
            return []
        names, targets = self._decider.engine.bundle.names, self._upstreams.targets
        return [
            {
                "candidate": name,
                "formats": targets[name].formats,
                "state": targets[name].health.state if name in names else None,
                "attempts": None
                if self._config.tenants
                else _by(samples, "ipr_upstream_attempts_total", "outcome", candidate=name),
            }
            for name in (open_to if self._config.tenants else targets)
        ]

    def _beside(self, samples: list[MetricSample]) -> dict[str, Any] | None:
        """Return what the shadow would have chosen of everybody's requests: no tenant is told of it."""
        shadow = self._shadow
        if shadow is None or self._config.tenants:
            return None
        choices = _by(samples, "ipr_shadow_total", "choice")
        return {"bundle": shadow.engine.bundle.hash, "problem": shadow.problem, "choices": choices}


def _told_apart(spoken: Sequence[Sequence[str]]) -> list[str]:
    """Return the formats that are spoken, where a request's format tells who may answer it; else none."""
    if len({frozenset(one) for one in spoken}) < 2:
        return []
    return [name for name in FORMATS if any(name in one for one in spoken)]


def _operating(asked: AskedPolicy | str) -> dict[str, Any]:
    """Return what a routed name runs, and what that promises where it promises a mean."""
    if isinstance(asked, str):
        return {"problem": asked}
    policy, promise = asked.policy, asked.policy.promise
    found: dict[str, Any] = {"tau": policy.tau, "rule": policy.rule, "calibration": policy.calibration.status}
    if promise is not None:
        found |= {"quality": promise.quality, "usd_per_1k": 1000 * promise.cost_usd, "note": promise.note}
    return found


def _candidates_and_curve(asked: AskedPolicy, engine: ServerEngine) -> dict[str, Any]:
    bundle, policy = engine.bundle, asked.policy
    if policy.bundle_hash != bundle.hash:  # swapped a moment ago: the next look has it
        return {
            "candidates": [{"name": name} for name in bundle.names],
            "curve": None,
            "no_curve": "a swap is under way",
        }
    pathed = policy
    if policy.path is None:  # another rule runs; tau's path of the same candidates shows what could
        kept: dict[str, Any] = {name: value for name, value in policy.options.items() if name in OF_PATH}
        pathed = engine.policy(tau=policy.tau, allowed=list(policy.allowed), **kept)
    alone = _alone(pathed, bundle)
    candidates = [
        {"name": name, "out": asked.exclusions.get(name), **alone.get(name, {})} for name in bundle.names
    ]  # fmt: skip
    best = None if asked.best is None else bundle.names[asked.best]
    path = pathed.path
    if path is None:
        return {"candidates": candidates, "best": best, "curve": None, "no_curve": pathed.calibration.reason}
    points = [point_at(path, tau) for tau in CURVE_TAUS]
    curve = [[point.tau, point.level, 1000 * usd_at(path, point)] for point in points]
    return {"candidates": candidates, "best": best, "curve": curve, "no_curve": None}


def _alone(policy: Policy, bundle: BundleSpec) -> dict[str, dict[str, float]]:
    """Return candidate -> what it would give and cost alone, on average over the path's rows."""
    if policy.path is None or bundle.path_rows is None:
        return {}
    qualities = mean_qualities(bundle.path_rows.of(policy.allowed))
    usd = (1000 * np.asarray(policy.path.single_usd)).tolist()
    return {
        name: {"quality": quality, "usd_per_1k": cost}
        for name, quality, cost in zip(policy.allowed, qualities, usd, strict=True)
    }


def _sum(samples: list[MetricSample], name: str) -> float:
    return sum(sample.value for sample in samples if sample.name == name)


def _by(samples: list[MetricSample], name: str, label: str, **labels: str) -> dict[str, int]:
    """Return value of a label -> count, of the samples that have these labels."""
    found: Counter[str] = Counter()
    for sample in samples:
        if sample.name == name and labels.items() <= sample.labels.items():
            found[sample.labels[label]] += int(sample.value)
    return dict(found)
