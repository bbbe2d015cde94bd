"""A `PolicyBook` compiles and keeps the policy that each request means: of the server, the model asked for, the tenant and the request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from ipr_engine.bundle import BundleSpec
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.unsupported import best_single
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.controls import LEVEL, MASKS, Controls
from ipr_engine.server.json_text import json_text
from ipr_engine.server.refused import RefusedError, refused_as
from ipr_engine.server.request_formats import RequestFormat
from ipr_engine.server.server_config import ServerConfig, Tenant
from ipr_engine.server.server_engine import PolicyMaker

DEFAULT_TAU = 0.1
MOST_KEPT = 16384
"""Bytes of options, as JSON, from which on a policy is compiled for its request alone: `limits.policies` bounds memory, too."""
FORMAT = "format"
"""The cause by which a candidate is left out that cannot speak the request's format."""


class PolicyBook:
    """A `PolicyBook` keeps the policies of one server, the least lately used leaving first."""

    def __init__(self, engine: PolicyMaker, config: ServerConfig) -> None:
        self._engine = engine
        self._config = config
        self._kept: OrderedDict[tuple[object, ...], AskedPolicy] = OrderedDict()

    def format_exclusions(self, form: RequestFormat | None, bundle: BundleSpec) -> dict[str, str]:
        """Return candidate -> why it cannot answer a request of this format (None: of any)."""
        config = self._config
        found: dict[str, str] = {}
        if not config.upstreams:
            return found
        for name in bundle.names:
            if name not in config.upstreams:
                found[name] = "upstream: none is configured"
                continue
            spoken = config.endpoints[config.upstream(name).endpoint].formats
            if form is not None and form.name not in spoken:
                found[name] = f"{FORMAT}: its upstream speaks {' and '.join(spoken)}, not {form.name}"
        return found

    async def of(self, tenant: Tenant, model: str, form: RequestFormat | None, controls: Controls) -> AskedPolicy:
        """Return the policy of a request. One that is not kept is compiled in a thread: it may take milliseconds.

        Raises:
            RefusedError: an option is wrong, or leaves nobody who could answer.
        """
        asked, serving = controls.policy, self._engine.bundle.hash
        text = json_text(asked, sort_keys=True) if asked else b""
        means = (tenant.name, model, None if form is None else form.name, text)
        found = self._kept.get((serving, means))
        if found is not None:
            self._kept.move_to_end((serving, means))
            return found
        try:
            found = await asyncio.to_thread(self.compile, tenant, model, form, asked)
        except InvalidInputError as error:
            if self._engine.bundle.hash != serving:  # swapped meanwhile: names of the one before may be unknown
                return await self.of(tenant, model, form, controls)
            raise refused_as(error) from None
        if len(text) > MOST_KEPT:
            return found
        self._kept[found.policy.bundle_hash, means] = found
        while len(self._kept) > self._config.server.limits.policies:
            self._kept.popitem(last=False)
        return found

    def compile(self, tenant: Tenant, model: str, form: RequestFormat | None, asked: Mapping[str, Any]) -> AskedPolicy:
        """Compile the policy of a request for the bundle that serves now.

        Raises:
            InvalidInputError: an option is wrong, or leaves nobody who could answer.
        """
        engine, config = self._engine, self._config
        bundle = engine.bundle
        levels = (config.policy, config.models.get(model, {}), tenant.policy, asked)
        exclusions = self.format_exclusions(form, bundle)
        chosen: dict[str, Any] = {}
        for options in levels:
            masks = {name: value for name, value in options.items() if name in MASKS}
            if masks:
                for name, why in engine.policy(rule="minmax", tau=0.0, **masks).exclusions.items():
                    exclusions.setdefault(name, why)
            chosen = over(chosen, options)
        allowed = [name for name in bundle.names if name not in exclusions]
        if not allowed:
            why = "; ".join(f"{name}: {reason}" for name, reason in exclusions.items())
            raise InvalidInputError(f"allowed: nobody is left who could answer ({why})")
        if not LEVEL & chosen.keys():
            chosen["tau"] = DEFAULT_TAU
        policy = engine.policy(**chosen, allowed=allowed if exclusions else None)
        if policy.bundle_hash != bundle.hash:  # swapped meanwhile: positions are those of the other bundle
            return self.compile(tenant, model, form, asked)
        exclusions = {**policy.exclusions, **exclusions}
        masked = tuple(name for name, why in exclusions.items() if why.startswith(FORMAT))
        return AskedPolicy(policy, exclusions, best_of(policy, bundle), masked)


def over(options: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with others over them, without masks. A level of quality goes over any other level."""
    kept = {name: value for name, value in others.items() if name not in MASKS and value is not None}
    if LEVEL & kept.keys():
        options = {name: value for name, value in options.items() if name not in LEVEL}
    return {**options, **kept}


def best_of(policy: Policy, bundle: BundleSpec) -> int | None:
    """Return the position of the best single candidate of a policy; None where the bundle does not tell."""
    if policy.promise is not None:
        return bundle.names.index(policy.promise.best)
    try:
        return bundle.names.index(best_single(bundle, policy.allowed, policy.prices))
    except InvalidInputError:
        return None


def speakers(config: ServerConfig, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return candidate -> formats its upstream speaks, of those that have one."""
    return {
        name: config.endpoints[config.upstream(name).endpoint].formats for name in names if name in config.upstreams
    }


def require_known(model: object, known: Iterable[str]) -> str:
    """Return the model that a request asks for.

    Raises:
        RefusedError: 400, it is missing or no text; 404, it is not known.
    """
    names = list(known)
    if not isinstance(model, str) or not model:
        raise RefusedError(400, f"model: expected one of {', '.join(names)}", "model")
    if model not in names:
        raise RefusedError(404, f"model: {model[:128]!r} is not known; known: {', '.join(names)}", "model")
    return model
