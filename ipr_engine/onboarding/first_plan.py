"""`first_plan` makes the plan of a project from a file of models, prompts and a budget; `upstreams_of` says where `ipr serve` asks them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipr_engine._extras import need
from ipr_engine._files import as_path, sha256_hex, write_atomically
from ipr_engine.collection.collection_plan import PLAN, CollectionPlan, read_plan
from ipr_engine.documents.yaml_file import YamlKind, read_yaml
from ipr_engine.errors import InvalidInputError

MODELS = YamlKind("file of models", "collect", "candidates, providers and prices_date")
OWN_KEYS = ("prompts", "budget_usd", "out")
LIKE = "like"  # of a candidate: whose public scores it starts from without outcomes (offline_models.py); outcomes need none
WRITTEN = "# Written by ipr init from {models}; edit that file, or take this line away and edit this one.\n"
_FIRST = WRITTEN.partition("{")[0]
UPSTREAMS_WRITTEN = "# Written by ipr init; once edited it stays as it is. {digest}\n"
PLAN_FILE, UPSTREAMS_FILE = "plan.yaml", "upstreams.yaml"


def first_plan(
    models: str | os.PathLike[str], prompts: str | os.PathLike[str], budget_usd: float, project: Path
) -> CollectionPlan:
    """Write the plan of a project, and return it; one that somebody has edited stays as it is.

    Args:
        models: YAML: what a plan holds (docs/collecting.md) but `prompts`, `budget_usd` and `out`. A candidate's `like` is left out.
    Raises:
        InvalidInputError: a file cannot be read, or something in it is wrong; the file, the line and the key are named.
    """
    given, file = as_path(models, "--models"), project / PLAN_FILE
    document = read_yaml(given, MODELS)
    for key in OWN_KEYS:
        if key in document:
            raise InvalidInputError(f"{given}: {key}: is no key here; `ipr init` says it (--prompts, --budget, --out)")
    listed = document.get("candidates")
    if isinstance(listed, list) and any(isinstance(entry, str) for entry in listed):
        raise InvalidInputError(
            f"{given}: candidates: names are enough with --offline alone; to ask models, say of each its family, provider, prices and "
            "max_tokens, and name providers (docs/first-router.md)"
        )
    asked = as_path(prompts, "--prompts")
    if not asked.exists():
        raise InvalidInputError(f"--prompts: {asked}: no such file")
    for provider in (document.get("providers") or {}).values() if isinstance(document.get("providers"), dict) else ():
        if isinstance(provider, dict) and isinstance(provider.get("api_key_file"), str):
            provider["api_key_file"] = os.path.join(given.absolute().parent, provider["api_key_file"])
    if isinstance(document.get("ledgers"), list):
        beside = given.absolute().parent
        document["ledgers"] = [
            os.path.join(beside, one) if isinstance(one, str) else one for one in document["ledgers"]
        ]
    if isinstance(document.get("candidates"), list):
        for entry in document["candidates"]:
            if isinstance(entry, dict):
                entry.pop(LIKE, None)
    whole = {"prompts": str(asked.absolute()), "budget_usd": budget_usd, **document}
    yaml = need("yaml", "a plan", PLAN.extra)
    text = WRITTEN.format(models=given.name) + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=120)
    if is_edited(project):
        edited = read_plan(file)
        if edited.budget_usd != budget_usd:
            raise InvalidInputError(
                f"--budget: expected USD {edited.budget_usd:g}, as {file} says, which somebody has edited, got {budget_usd:g}"
            )
        return edited
    before = file.read_bytes() if file.exists() else None
    write_atomically(file, text.encode())
    try:
        return read_plan(file)
    except InvalidInputError as error:
        if before is None:
            file.unlink()
        else:
            write_atomically(file, before)
        raise InvalidInputError(f"{given}: {_without_place(str(error), file)}") from None


def is_edited(project: Path) -> bool:
    """Return whether a project's plan is somebody's own: its first line does not say that `ipr init` has written it."""
    file = project / PLAN_FILE
    try:
        return not file.read_bytes().startswith(_FIRST.encode())
    except FileNotFoundError:
        return False


def _without_place(text: str, file: Path) -> str:
    """Return an error without the place in the plan that was made of the file: its lines are others."""
    lines = (line.split(": ", 1)[1] if line.startswith(str(file)) else line for line in text.splitlines())
    return "\n".join(lines)


def write_upstreams(plan: CollectionPlan, project: Path) -> list[str]:
    """Write what `ipr serve --upstreams` takes; return what is left to do by hand, a line each. An edited file stays as it is."""
    yaml, left = need("yaml", "a config of the server", "serve"), list[str]()
    file = project / UPSTREAMS_FILE
    if file.exists() and not _as_written(file.read_bytes()):
        return [f"{file} was edited and stays as it is"]
    endpoints: dict[str, Any] = {}
    for name, provider in plan.providers.items():
        if provider.sdk == "litellm" or provider.base_url is None:
            left.append(f"{name}: name its address (base_url) in {UPSTREAMS_FILE}")
        endpoint: dict[str, Any] = {"base_url": provider.base_url or "https://", "formats": ["openai-chat"]}
        if provider.api_key_env is not None:
            endpoint["api_key_env"] = provider.api_key_env
        elif provider.api_key_file is not None:
            endpoint["api_key_env"] = "API_KEY"
            left.append(f"{name}: name the variable that holds its key (api_key_env) in {UPSTREAMS_FILE}")
        if provider.headers:
            endpoint["headers"] = dict(provider.headers)
        endpoints[name] = endpoint
    document: dict[str, Mapping[str, Any]] = {"endpoints": endpoints, "upstreams": {}}
    for one in plan.asked:
        upstream: dict[str, Any] = {"endpoint": one.provider, "model": one.model}
        if one.parameters:
            upstream["body"] = {"openai-chat": dict(one.parameters)}
        document["upstreams"][one.name] = upstream  # type: ignore[index]
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    write_atomically(file, UPSTREAMS_WRITTEN.format(digest=sha256_hex(text.encode())).encode() + text.encode())
    return left


def _as_written(content: bytes) -> bool:
    """Return whether a file holds what its first line says was written."""
    first, _, rest = content.partition(b"\n")
    return first + b"\n" == UPSTREAMS_WRITTEN.format(digest=sha256_hex(rest)).encode()
