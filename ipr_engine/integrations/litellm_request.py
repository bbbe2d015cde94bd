"""What LiteLLM's proxy keeps of a request: the controls in it, and which deployment its router asked last."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from ipr_engine.integrations.seat import Said
from ipr_engine.request.controls import TASK, TASK_OF_METADATA


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


def controls_in(body: Mapping[str, Any]) -> Said:
    """Return what a request says of its decision: by headers, by objects of its body, and by the task of its metadata."""
    request = _object(body.get("proxy_server_request"))
    metadata = _object(body.get("metadata"))
    # As it was sent; metadata that was sent as JSON in a text is what the proxy read out of it.
    said = _object(_object(request.get("body")).get("metadata")) or metadata
    objects = [("ipr", body["ipr"])] if "ipr" in body else []
    if "ipr" in said:
        objects.append(("metadata.ipr", said["ipr"]))
    named = []
    if TASK_OF_METADATA in said:
        named.append((TASK, f"metadata.{TASK_OF_METADATA}", said[TASK_OF_METADATA]))
    return Said(request.get("headers") or metadata.get("headers"), objects, named)


def _object(given: object) -> Mapping[str, Any]:
    """Return an object of a body; empty where it is none."""
    return given if isinstance(given, Mapping) else {}


def take_out_controls(body: dict[str, Any]) -> None:
    """Take the controls out of a body: a provider would refuse the field. The task of the metadata stays, for logs."""
    body.pop("ipr", None)
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and metadata.pop("ipr", None) is not None and not metadata:
        del body["metadata"]
