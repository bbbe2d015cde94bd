"""`model_list` is what `/v1/models` lists: names that are routed, with who may be chosen for them, and candidates that may be named."""

from __future__ import annotations

from typing import Any

from ipr_engine.policy.levels import without_masks
from ipr_engine.policy.rules import with_aim
from ipr_engine.request.controls import NO_CONTROLS
from ipr_engine.server.decided import AskedRequest
from ipr_engine.server.decider import Decider
from ipr_engine.server.judge_schema import JUDGE
from ipr_engine.server.policy_book import speakers
from ipr_engine.server.server_config import ServerConfig, Tenant


async def model_list(config: ServerConfig, decider: Decider, tenant: Tenant) -> list[dict[str, Any]]:
    """Return what a tenant may ask for: routed names first, then the judge, then candidates that have an upstream.

    Raises:
        RefusedError: the config does not suit the bundle that serves.
    """
    bundle = decider.engine.bundle
    made = {"object": "model", "created": 0, "owned_by": "ipr"}
    routed = {name: await _open(decider, tenant, name) for name in config.models}
    listed: list[dict[str, Any]] = [
        {
            "id": name,
            **made,
            "policy": with_aim(without_masks((config.policy, config.models[name], tenant.policy))),
            "candidates": among,
        }
        for name, among in routed.items()
    ]
    # the judge decides as the first of them
    listed.append({"id": JUDGE, **made, "candidates": next(iter(routed.values()))})
    if not config.upstreams:
        return listed
    spoken, named = speakers(config, bundle.names), await _open(decider, tenant, "")
    listed += [
        {
            "id": one.name,
            "object": "model",
            "created": 0,
            "owned_by": one.provider,
            "context_length": one.context_window,
            "max_output_tokens": one.max_output_tokens,
            "capabilities": list(one.features),
            "formats": list(spoken[one.name]),
        }
        for one in bundle.candidates
        if one.name in named and one.name in spoken
    ]
    return listed


async def _open(decider: Decider, tenant: Tenant, model: str) -> list[str]:
    """Return who may answer a tenant that asks for a model, in whichever format; "" stands for none of the routed."""
    return list((await decider.book.of(AskedRequest(None, NO_CONTROLS, tenant, model))).policy.allowed)
