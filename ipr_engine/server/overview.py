"""An `Overview` gathers what the page shows: totals, candidates, the quality-cost curve, upstreams, and the last decisions."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from time import time
from typing import Any

import numpy as np

from ipr_engine.bundle import BundleSpec
from ipr_engine.bundle.origin import prior_of
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.promise import point_at, usd_at
from ipr_engine.policy.unsupported import mean_qualities
from ipr_engine.request.controls import NO_CONTROLS
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.decided import AskedRequest
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
CURVES_KEPT = 64  # one for each tenant that looks, and each format that it looks at
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
        self._curves: list[tuple[tuple[AskedPolicy, AskedPolicy], dict[str, Any]]] = []

    async def of(self, tenant: Tenant, form: RequestFormat | None = None) -> dict[str, Any]:
        """Return all of it as plain JSON types; what takes long is done in a thread.

        form: of which requests candidates and curve are told; None: the first that is spoken, where upstreams speak different ones.
        """
        whole = await self._asked(tenant, "", None)  # what is open to the tenant, whatever it asks for
        formats = self._told_apart(whole)
        if formats and form is None:
            form = FORMATS[formats[0]]
        asked = {model: await self._asked(tenant, model, form) for model in self._config.models}
        self._decider.afterwards.done()
        found = await asyncio.to_thread(self._gathered, tenant, asked, whole)
        return {**found, "formats": formats, "format": None if form is None else form.name}

    def _told_apart(self, whole: AskedPolicy | str) -> list[str]:
        """Return the formats that are spoken, where a request's format tells who may answer it; else none."""
        if self._upstreams is None or isinstance(whole, str):
            return []
        targets = self._upstreams.targets.items()
        spoken = [target.formats for name, target in targets if name in whole.policy.allowed]
        if len({frozenset(one) for one in spoken}) < 2:
            return []
        return [name for name in FORMATS if any(name in one for one in spoken)]

    async def _asked(self, tenant: Tenant, model: str, form: RequestFormat | None) -> AskedPolicy | str:
        """Return what a tenant's requests mean, or why they mean nothing: a bundle that was swapped in may not suit the config."""
        try:
            return await self._decider.book.of(AskedRequest(None, NO_CONTROLS, tenant, model, form))
        except RefusedError as refusal:
            return refusal.message

    def _gathered(
        self, tenant: Tenant, asked: Mapping[str, AskedPolicy | str], whole: AskedPolicy | str
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
            **self._candidates(first, whole, engine),
            "totals": self._totals(tenant, samples),
            "upstreams": self._health(samples, whole),
            "shadow": self._beside(samples),
            "recent": {"decisions": looked.decisions, "unread": looked.unread},
        }

    def _candidates(self, asked: AskedPolicy | str, whole: AskedPolicy | str, engine: ServerEngine) -> dict[str, Any]:
        """Return the candidates and tau's path over them, computed once for a policy."""
        if isinstance(asked, str) or isinstance(whole, str):
            why = asked if isinstance(asked, str) else whole
            return {"candidates": [{"name": name} for name in engine.bundle.names], "curve": None, "no_curve": why}
        for policies, found in self._curves:
            if policies[0] is asked and policies[1] is whole:
                return found
        found = _candidates_and_curve(asked, whole, engine)
        kept = [one for one in self._curves if one[0][0].policy.bundle_hash == engine.bundle.hash]
        self._curves = [*kept, ((asked, whole), found)][-CURVES_KEPT:]
        return found

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

    def _health(self, samples: list[MetricSample], whole: AskedPolicy | str) -> list[dict[str, Any]]:
        """Return the state of upstreams. A tenant is told of those that it may reach, and not of attempts, which are everybody's."""
        if self._upstreams is None:
            return []
        names, targets = self._decider.engine.bundle.names, self._upstreams.targets
        open_to = () if isinstance(whole, str) else whole.policy.allowed
        return [
            {
                "candidate": name,
                "formats": targets[name].formats,
                "state": targets[name].health.state if name in names else None,
                "attempts": None
                if self._config.tenants
                else _by(samples, "ipr_upstream_attempts_total", "outcome", candidate=name),
            }
            for name in targets
            if name in open_to or not self._config.tenants
        ]

    def _beside(self, samples: list[MetricSample]) -> dict[str, Any] | None:
        """Return what the shadow would have chosen of everybody's requests: no tenant is told of it."""
        shadow = self._shadow
        if shadow is None or self._config.tenants:
            return None
        choices = _by(samples, "ipr_shadow_total", "choice")
        return {"bundle": shadow.engine.bundle.hash, "problem": shadow.problem, "choices": choices}


def _operating(asked: AskedPolicy | str) -> dict[str, Any]:
    """Return what a routed name runs, and what that promises where it promises a mean."""
    if isinstance(asked, str):
        return {"problem": asked}
    policy, promise = asked.policy, asked.policy.promise
    found: dict[str, Any] = {"tau": policy.tau, "rule": policy.rule, "calibration": policy.calibration.status}
    if promise is not None:
        found |= {"quality": promise.quality, "usd_per_1k": 1000 * promise.cost_usd, "note": promise.note}
    return found


def _candidates_and_curve(asked: AskedPolicy, whole: AskedPolicy, engine: ServerEngine) -> dict[str, Any]:
    bundle, policy = engine.bundle, asked.policy
    if {policy.bundle_hash, whole.policy.bundle_hash} != {bundle.hash}:  # swapped a moment ago: the next look has it
        return {
            "candidates": [{"name": name} for name in bundle.names],
            "curve": None,
            "no_curve": "a swap is under way",
        }
    pathed = _pathed(policy, engine)
    alone = {**_alone(_pathed(whole.policy, engine), bundle), **_alone(pathed, bundle)}
    candidates = [
        {"name": name, "out": asked.exclusions.get(name), "prior": prior_of(bundle, name), **alone.get(name, {})}
        for name in bundle.names
    ]
    best = None if asked.best is None else bundle.names[asked.best]
    path = pathed.path
    if path is None:
        return {"candidates": candidates, "best": best, "curve": None, "no_curve": pathed.calibration.reason}
    points = [point_at(path, tau) for tau in CURVE_TAUS]
    curve = [[point.tau, point.level, 1000 * usd_at(path, point)] for point in points]
    return {"candidates": candidates, "best": best, "curve": curve, "no_curve": None}


def _pathed(policy: Policy, engine: ServerEngine) -> Policy:
    """Return the policy; where another rule runs, tau's path of the same candidates, which shows what could."""
    if policy.path is not None:
        return policy
    kept: dict[str, Any] = {name: value for name, value in policy.options.items() if name in OF_PATH}
    return engine.policy(tau=policy.tau, allowed=list(policy.allowed), **kept)


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
