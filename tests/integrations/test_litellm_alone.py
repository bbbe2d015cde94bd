"""Both seats without a proxy: what LiteLLM looks for in them, and what their document shows."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import re
from typing import Any

import pytest

from ipr_engine import Engine
from ipr_engine.integrations.seat import Answer
from ipr_engine.policy.best_position import best_position
from tests.support import skips
from tests.support.places import ROOT

if importlib.util.find_spec("litellm") is None:
    pytest.skip(skips.GATEWAYS, allow_module_level=True)

import yaml
from litellm.types.router import RoutingContext

from ipr_engine.integrations.litellm import IprClassifier, IprPlugin

TIERS = {"large": "alpha/large", "mid": "beta/mid"}
POOL = {f"openai/up-{tier}": candidate for tier, candidate in TIERS.items()}


def test_a_class_of_ones_own_has_the_hooks_that_litellm_looks_for(engine):
    class Mine(IprClassifier):
        pass

    assert {"async_pre_call_hook", "async_post_call_response_headers_hook"} <= vars(Mine).keys()
    made = Mine(TIERS, bundle=engine)
    assert copy.deepcopy({"config": made})["config"] is made


def test_a_classifier_that_is_cut_short_is_counted(engine):
    made = IprClassifier(TIERS, bundle=engine)
    context = RoutingContext(raw_messages=[], structured_messages=[], candidate_models=[])

    async def cut() -> None:
        task = asyncio.create_task(made.classify(context))
        task.cancel()
        await task

    async def late() -> None:
        made.seat.decide = lambda *_: asyncio.sleep(20)
        await asyncio.wait_for(made.classify(context), 0.01)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cut())
    assert not made.seat.counts  # it had not begun
    with pytest.raises(TimeoutError):
        asyncio.run(late())
    assert dict(made.seat.counts) == {("undecided", "CancelledError"): 1}


def test_a_plugin_without_a_bundle_leaves_groups_as_they_are(tmp_path):
    made = IprPlugin(POOL, bundle=tmp_path / "nothing")
    messages = [{"role": "user", "content": "hello"}]
    context = RoutingContext(raw_messages=messages, structured_messages=messages, candidate_models=list(POOL))
    assert asyncio.run(made.run(context)).candidate_models == list(POOL)
    assert dict(made.seat.counts) == {("undecided", "BundleNotFoundError"): 1}


def test_what_the_document_shows_fits_together():
    text = (ROOT / "docs" / "litellm.md").read_text()
    module, plugin = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    config, groups = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    made: dict[str, Any] = {}
    exec(module + plugin, made)
    router = config["model_list"][0]["litellm_params"]["complexity_router_config"]
    assert router["classifier_plugin"] == config["litellm_settings"]["callbacks"][0] == "my_ipr.auto"
    tiers = [tier["name"] for tier in router["tier_definitions"]]
    assert tiers == list(router["tiers"]) == list(made["auto"].seat.names())
    assert set(router["tiers"].values()) == {model["model_name"] for model in config["model_list"][1:]}
    assert router["fallback_tier"] in tiers
    assert groups["router_settings"]["plugins"] == groups["litellm_settings"]["callbacks"] == ["my_ipr.pool"]
    assert [one["litellm_params"]["model"] for one in groups["model_list"]] == list(made["pool"].seat.names())
    assert f"x-ipr-bundle: {made['auto'].seat.engine.bundle.hash[:16]}" in text
    decision = Engine.load().route("What is 17 * 23?", tau=0.2, allowed=list(made["auto"].seat.names().values()))
    best = best_position(decision.policy, decision.bundle)
    shown = Answer(decision, best).headers(decision.model)
    assert all(f"    {name}: {value}\n" in text for name, value in shown.items()), shown
