"""What LiteLLM's proxy keeps of a request: the controls in it, and which deployment its router asked last."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast


def routed(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what LiteLLM's router noted of the deployment that answers: its model is "deployment", its group "deployment_model_name".

    The logging object has it as of the last attempt, as for x-litellm-model-name; the request's own data stay those of the first
    group.
    """
    params = getattr(data.get("litellm_logging_obj"), "litellm_params", None) or {}
    for kept in (params, data):
        for name in ("litellm_metadata", "metadata"):
            metadata = kept.get(name) or {}
            if metadata.get("deployment"):
                return cast(Mapping[str, Any], metadata)
    return {}


def tiers_of(alias: object) -> dict[str, list[str]]:
    """Return tier -> model groups of an alias, as the proxy's router serves it now."""
    router = importlib.import_module("litellm.proxy.proxy_server").llm_router
    found: dict[str, list[str]] = {}
    for deployment in router.registry().deployments(alias) or ():
        config = deployment["litellm_params"].get("complexity_router_config") or {}
        for tier, groups in (config.get("tiers") or {}).items():
            found[str(tier)] = [groups] if isinstance(groups, str) else list(groups)
    return found


def same_request(body: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Say whether two bodies are one request's: callbacks of others may hand on a copy."""
    call = "litellm_call_id"
    return body is data or (body.get(call) is not None and body.get(call) == data.get(call))


def controls_in(body: Mapping[str, Any]) -> tuple[object, list[tuple[str, object]]]:
    """Return the headers of a request, and where its body holds controls, and them."""
    request = body.get("proxy_server_request") or {}
    metadata = body.get("metadata") or {}
    said = (request.get("body") or {}).get("metadata") or metadata
    objects = [("ipr", body["ipr"])] if "ipr" in body else []
    if isinstance(said, Mapping) and "ipr" in said:
        objects.append(("metadata.ipr", said["ipr"]))
    return request.get("headers") or metadata.get("headers"), objects


def take_out_controls(body: dict[str, Any]) -> None:
    """Take the controls out of a body: a provider would refuse the field."""
    body.pop("ipr", None)
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and metadata.pop("ipr", None) is not None and not metadata:
        del body["metadata"]
