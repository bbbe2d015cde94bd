"""Both seats in LiteLLM's own proxy: one process of it and a provider's stub for all of this file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.litellm_proxy import LiteLLMProxy
from tests.support.upstream_stub import UpstreamStub

pytestmark = pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason=skips.GATEWAYS)

TIERS = {
    "large": "alpha/large",  # no features
    "mid": "beta/mid",  # tools
    "small": "gamma/small",  # tools and vision
    "tiny": "delta/tiny",  # no features
}
# LiteLLM serves one alias with tiers of its operator's own without a licence, and any number with the tiers it ships
SHIPPED = {"SIMPLE": "tiny", "MEDIUM": "mid", "COMPLEX": "small", "REASONING": "large"}
POOL = {f"openai/up-{tier}": candidate for tier, candidate in TIERS.items()}
PROMPTS = [
    "what is the code",
    "prove it",
    "write a story in python",
    "explain why the code is the code and how",
    "hello 42",
]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}

MODULE = """
from ipr_engine.integrations.litellm import IprClassifier, IprPlugin

auto = IprClassifier({tiers!r}, bundle={bundle!r}, tau=0.2, alias="auto")
fixed = IprClassifier({shipped!r}, bundle={bundle!r}, tau=1.0, alias="fixed", controls=())
broken = IprClassifier({shipped!r}, bundle={missing!r}, alias="broken")
unseen = IprClassifier({shipped!r}, bundle={bundle!r}, tau=0.2)  # no callback
pool = IprPlugin({pool!r}, bundle={bundle!r}, tau=0.2, groups=["pool", "strange"])
"""


def alias(name: str) -> dict[str, Any]:
    router: dict[str, Any] = {"classifier_type": "custom", "classifier_plugin": f"my_ipr.{name}"}
    if name == "auto":
        router["tier_definitions"] = [{"name": tier, "description": tier} for tier in TIERS]
        router |= {"fallback_tier": "mid", "tiers": {tier: f"m-{tier}" for tier in TIERS}}
    else:
        router["tiers"] = {shipped: f"m-{tier}" for shipped, tier in SHIPPED.items()}
        router |= {"classifier_fallback": "default_model", "default_model": "m-mid"}
    params = {"model": "auto_router/complexity_router", "complexity_router_config": router}
    return {"model_name": name, "litellm_params": params}


def deployment(group: str, model: str, upstream: str) -> dict[str, Any]:
    params = {"model": f"openai/{model}", "api_base": f"{upstream}/v1", "api_key": "none"}
    return {"model_name": group, "litellm_params": params}


def config(upstream: str) -> dict[str, Any]:
    groups = [(f"m-{tier}", f"up-{tier}") for tier in TIERS]
    groups += [("pool", f"up-{tier}") for tier in TIERS]
    groups += [("strange", "up-large"), ("strange", "nobody-knows"), ("embeddings", "embedder")]
    groups += [("stranger", "nobody-knows")]
    return {
        "model_list": [
            *map(alias, ("auto", "fixed", "broken", "unseen")),
            *(deployment(group, model, upstream) for group, model in groups),
        ],
        "router_settings": {
            "plugins": ["my_ipr.pool"],
            "fallbacks": [{"m-large": ["m-small"]}, {"m-tiny": ["stranger"]}],
            "num_retries": 2,
            "disable_cooldowns": True,
        },
        "litellm_settings": {
            "callbacks": ["prometheus", *(f"my_ipr.{name}" for name in ("auto", "fixed", "broken", "pool"))]
        },
    }


@pytest.fixture(scope="module")
def upstream() -> Iterator[UpstreamStub]:
    with UpstreamStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def proxy(
    upstream: UpstreamStub, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiteLLMProxy]:
    folder = tmp_path_factory.mktemp("litellm")
    shipped = {name: TIERS[tier] for name, tier in SHIPPED.items()}
    module = MODULE.format(
        tiers=TIERS, shipped=shipped, pool=POOL, bundle=str(bundle_folder), missing=str(folder / "no-bundle-here")
    )
    with LiteLLMProxy(folder, config(upstream.url), {"my_ipr.py": module}) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_fails(upstream: UpstreamStub) -> None:
    upstream.reset()


def chosen(engine: Engine, prompt: Any, tau: float, **body: Any) -> str:
    """The tier that the engine itself chooses."""
    request = {"messages": [{"role": "user", "content": prompt}], **body}
    model = engine.route(request, tau=tau, allowed=list(TIERS.values())).model
    return next(tier for tier, candidate in TIERS.items() if candidate == model)


def served(upstream: UpstreamStub) -> list[str]:
    return [one["model"].removeprefix("up-") for one in upstream.seen()]


@pytest.mark.parametrize("tau", [None, "0", "0.5", "1"])
def test_the_alias_is_served_by_the_engines_choice(proxy, upstream, engine, tau):
    headers = {} if tau is None else {"x-ipr-tau": tau}
    expected = [chosen(engine, prompt, 0.2 if tau is None else float(tau)) for prompt in PROMPTS]
    replies = [proxy.chat("auto", prompt, headers) for prompt in PROMPTS]
    assert [reply.status for reply in replies] == [200] * len(PROMPTS)
    assert served(upstream) == expected
    assert [reply.headers["x-ipr-candidate"] for reply in replies] == [TIERS[tier] for tier in expected]
    assert {reply.headers["x-litellm-complexity-router-cause"] for reply in replies} == {"classifier_plugin"}
    assert {float(reply.headers["x-ipr-tau"]) for reply in replies} == {0.2 if tau is None else float(tau)}


def test_tau_by_header_changes_the_model(proxy, upstream, engine):
    best, cheapest = chosen(engine, PROMPTS[0], 0.0), chosen(engine, PROMPTS[0], 1.0)
    assert best != cheapest
    proxy.chat("auto", PROMPTS[0], {"x-ipr-tau": "0"})
    proxy.chat("auto", PROMPTS[0], {"x-ipr-tau": "1"})
    assert served(upstream) == [best, cheapest]


@pytest.mark.parametrize("model", ["auto", "pool"])
@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"ipr": {"tau": 1}}},
        {"metadata": {"ipr": '{"tau": 1}', "mine": "a"}},
        {"ipr": {"tau": 1}},
        {"ipr": '{"tau": 1}'},
        {"ipr": None, "metadata": {"ipr": {"tau": 1}}},
    ],
)
def test_the_body_may_say_tau_as_well(proxy, upstream, engine, body, model):
    reply = proxy.chat(model, PROMPTS[0], **body)
    assert reply.headers["x-ipr-tau"] == "1"
    assert served(upstream) == [chosen(engine, PROMPTS[0], 1.0)]


@pytest.mark.parametrize("said", [{"ipr": {"tau": 1}}, {"metadata": {"ipr": '{"tau": 1}', "mine": "a"}}])
@pytest.mark.parametrize("model", ["auto", "pool", "m-large"])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPTS[0]}]}),
        ("/v1/messages", {"max_tokens": 16, "messages": [{"role": "user", "content": PROMPTS[0]}]}),
        ("/v1/responses", {"input": PROMPTS[0]}),
        ("/v1/completions", {"prompt": PROMPTS[0]}),
    ],
    ids=["chat", "messages", "responses", "completions"],
)
def test_no_provider_sees_the_controls(proxy, upstream, path, asked, model, said):
    reply = proxy.post(path, {"model": model, **asked, **said})
    assert reply.status == 200, reply.text
    assert reply.headers.get("x-ipr-tau") == (None if model == "m-large" else "1")
    [seen] = upstream.seen()
    assert "ipr" not in seen
    assert "ipr" not in (seen.get("metadata") or {})


def test_the_response_tells_the_decision(proxy, engine):
    reply = proxy.chat("auto", PROMPTS[1])
    request = {"messages": [{"role": "user", "content": PROMPTS[1]}]}
    decision = engine.route(request, tau=0.2, allowed=list(TIERS.values()))
    assert float(reply.headers["x-ipr-quality"]) == pytest.approx(decision.quality, abs=1e-4)
    assert float(reply.headers["x-ipr-cost-usd"]) == pytest.approx(decision.cost_usd, rel=1e-5)
    assert reply.headers["x-ipr-cause"] == decision.cause
    assert reply.headers["x-ipr-bundle"] == decision.bundle_hash[:16]


def test_a_stream_passes_and_tells_the_decision(proxy, upstream, engine):
    reply = proxy.chat("auto", PROMPTS[2], stream=True)
    tier = chosen(engine, PROMPTS[2], 0.2)
    assert reply.headers["x-ipr-candidate"] == TIERS[tier]
    assert reply.events[-1] == "[DONE]"
    words = [event["choices"][0]["delta"].get("content") for event in reply.events[:-1]]
    assert "".join(word for word in words if word) == f"Answered by up-{tier}."
    assert served(upstream) == [tier]


def test_a_request_with_tools_goes_to_a_candidate_with_tools(proxy, upstream):
    plain = {"x-ipr-tau": "1", "x-ipr-allowed": "large, mid, tiny"}
    assert proxy.chat("auto", PROMPTS[0], plain).headers["x-ipr-candidate"] == "delta/tiny"
    reply = proxy.chat("auto", PROMPTS[0], plain, tools=[TOOL])
    assert reply.headers["x-ipr-candidate"] == "beta/mid"
    assert reply.body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look_up"
    assert served(upstream) == ["tiny", "mid"]


def test_a_request_with_an_image_goes_to_a_candidate_that_sees(proxy, upstream):
    reply = proxy.chat("auto", [{"type": "text", "text": "what is in it"}, IMAGE], {"x-ipr-tau": "1"})
    assert (reply.status, reply.headers["x-ipr-candidate"]) == (200, "gamma/small")
    assert reply.headers["x-ipr-uncounted"] == "image_url"
    assert reply.headers["x-ipr-assumed-tokens"] == "1000"
    assert served(upstream) == ["small"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/messages", {"max_tokens": 16, "messages": [{"role": "user", "content": PROMPTS[3]}]}),
        ("/v1/responses", {"input": PROMPTS[3], "max_output_tokens": 16}),
        ("/v1/completions", {"prompt": PROMPTS[3], "max_tokens": 16}),
    ],
    ids=["messages", "responses", "completions"],
)
def test_other_formats_are_decided_alike(proxy, upstream, engine, path, said):
    expected = engine.route(said, tau=0.5, allowed=list(TIERS.values())).model
    reply = proxy.post(path, {"model": "auto", **said}, {"x-ipr-tau": "0.5"})
    assert (reply.status, reply.headers["x-ipr-candidate"]) == (200, expected), reply.text
    assert TIERS[served(upstream)[0]] == expected


@pytest.mark.parametrize(
    ("headers", "body", "control"),
    [
        ({"x-ipr-tau": "1.7"}, {}, "x-ipr-tau"),
        ({"x-ipr-tau": "much"}, {}, "x-ipr-tau"),
        ({"x-ipr-tau": "nan"}, {}, "x-ipr-tau"),
        ({"x-ipr-tua": "0.2"}, {}, "x-ipr-tua"),
        ({"x-ipr-allowed": "nobody"}, {}, "x-ipr-allowed"),
        ({"x-ipr-allowed": "epsilon/nano"}, {}, "x-ipr-allowed"),  # of the bundle, not of the alias
        ({"x-ipr-exclude": "large,mid,small,tiny"}, {}, "x-ipr-exclude"),
        ({"x-ipr-tau": "0.2"}, {"metadata": {"ipr": {"tau": 0.2}}}, "metadata.ipr.tau"),
        ({}, {"metadata": {"ipr": {"tau": "0.2"}}}, "metadata.ipr.tau"),
        ({}, {"metadata": {"ipr": 0.2}}, "metadata.ipr"),
        ({}, {"metadata": {"ipr": "tau"}}, "metadata.ipr"),
        ({"x-ipr-tau": "0.2"}, {"metadata": {"ipr": {"preset": "cost"}}}, "metadata.ipr.preset"),
        ({"x-ipr-requires": "wings"}, {}, "x-ipr-requires"),
        ({}, {"ipr": {"tau": 1.7}}, "ipr.tau"),
        ({}, {"ipr": {"tua": 0.2}}, "ipr.tua"),
        ({}, {"ipr": 0.2}, "ipr"),
        ({"x-ipr-tau": "0.2"}, {"ipr": {"tau": 0.2}}, "ipr.tau"),
        ({}, {"ipr": {"tau": 0.2}, "metadata": {"ipr": {"tau": 0.2}}}, "metadata.ipr.tau"),
    ],
)
def test_a_wrong_control_is_refused(proxy, upstream, headers, body, control):
    reply = proxy.chat("auto", PROMPTS[0], headers, **body)
    assert reply.status == 400
    assert reply.body["error"]["param"] == control
    assert reply.body["error"]["message"].startswith(f"{control}: ")
    assert PROMPTS[0] not in reply.text
    assert upstream.seen() == []


@pytest.mark.parametrize(
    ("headers", "body", "meant"),
    [
        ({"x-ipr-requires": "tools"}, {}, {"tau": 0.2, "requires": "tools"}),
        ({"x-ipr-family": "beta, delta", "x-ipr-tau": "1"}, {}, {"tau": 1.0, "family": ["beta", "delta"]}),
        (
            {"x-ipr-rule": "max"},
            {"metadata": {"ipr": '{"tau": 0.6, "slack": 0.1}'}},
            {"tau": 0.6, "rule": "max", "slack": 0.1},
        ),
    ],
)
def test_a_request_may_set_any_option_of_a_policy(proxy, engine, headers, body, meant):
    reply = proxy.chat("auto", PROMPTS[0], headers, **body)
    left = [name for name in engine.policy(**meant).allowed if name in TIERS.values()]
    meant = {name: value for name, value in meant.items() if name not in ("requires", "family")}
    request = {"messages": [{"role": "user", "content": PROMPTS[0]}]}
    decision = engine.route(request, **meant, allowed=left)
    assert (reply.status, reply.headers["x-ipr-candidate"]) == (200, decision.model), reply.text
    assert float(reply.headers["x-ipr-tau"]) == meant["tau"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-ipr-task": "support-bot"}, {}),
        ({}, {"ipr": {"task": "support-bot"}}),
        ({}, {"metadata": {"ipr": {"task": "support-bot"}}}),
        ({}, {"metadata": {"ipr_task": "support-bot", "user": "u1"}}),
    ],
)
def test_a_request_may_say_what_it_is_for_and_is_told_whether_that_is_known(proxy, headers, body):
    for model in ("auto", "pool"):
        reply = proxy.chat(model, PROMPTS[0], headers, **body)
        assert (reply.status, reply.headers["x-ipr-task"]) == (200, "unknown"), reply.text
        assert "x-ipr-task" not in proxy.chat(model, PROMPTS[0]).headers


def test_what_is_no_task_is_refused(proxy, upstream):
    reply = proxy.chat("auto", PROMPTS[0], metadata={"ipr_task": "x" * 201})
    assert (reply.status, reply.body["error"]["param"]) == (400, "metadata.ipr_task"), reply.text
    assert upstream.seen() == []


def test_controls_that_the_operator_does_not_accept_are_refused(proxy, upstream):
    assert proxy.chat("fixed", PROMPTS[0]).headers["x-ipr-tau"] == "1"
    assert proxy.chat("fixed", PROMPTS[0], {"x-ipr-tau": "0"}).status == 400
    assert len(upstream.seen()) == 1


CALLS = [
    pytest.param("/v1/chat/completions", {}, {"messages": [{"role": "user", "content": PROMPTS[0]}]}, id="chat"),
    pytest.param(
        "/v1/messages", {"max_tokens": 16}, {"messages": [{"role": "user", "content": PROMPTS[0]}]}, id="messages"
    ),
    pytest.param("/v1/responses", {}, {"input": PROMPTS[0]}, id="responses"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("path", "limits", "asked"), CALLS)
def test_the_headers_tell_who_answers_in_place_of_a_chosen_model_that_fails(
    proxy, upstream, engine, path, limits, asked, stream
):
    upstream.fail("up-large", "status", status=503)
    reply = proxy.post(path, {"model": "auto", **limits, **asked, "stream": stream}, {"x-ipr-allowed": "large"})
    assert (reply.status, served(upstream)) == (200, ["large", "small"]), reply.text
    assert reply.headers["x-litellm-model-name"] == "openai/up-small"
    assert told_of(reply) == predicted(engine, {**limits, **asked}, "small", "fallback", allowed=["alpha/large"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_answers_may_be_no_candidate(proxy, upstream, stream):
    upstream.fail("up-tiny", "status", status=503)
    reply = proxy.chat("auto", PROMPTS[0], {"x-ipr-allowed": "tiny"}, stream=stream)
    assert (reply.status, served(upstream)) == (200, ["tiny", "nobody-knows"])
    told = {name for name in reply.headers if name.startswith("x-ipr-")}
    assert told == {"x-ipr-cause", "x-ipr-tau", "x-ipr-bundle", "x-ipr-support"}
    assert reply.headers["x-ipr-cause"] == "fallback"


@pytest.mark.parametrize(("model", "asked"), [("auto", 1), ("pool", 3)])
def test_a_reply_that_nobody_answered_tells_of_no_candidate(proxy, upstream, model, asked):
    for tier in TIERS:
        upstream.fail(f"up-{tier}", "status", status=503)
    reply = proxy.chat(model, PROMPTS[0], {"x-ipr-exclude": "large, tiny"} if model == "auto" else {})
    assert reply.status == 503
    assert len(served(upstream)) >= asked
    assert not {name for name in reply.headers if name.startswith("x-ipr-")}


def told_of(reply: Any) -> dict[str, Any]:
    """What the headers say of who answers."""
    numbers = ("x-ipr-quality", "x-ipr-cost-usd")
    told = {name: float(reply.headers[name]) for name in numbers}
    return {"candidate": reply.headers["x-ipr-candidate"], "cause": reply.headers["x-ipr-cause"], **told}


def predicted(engine: Engine, request: dict[str, Any], tier: str, cause: str, **options: Any) -> dict[str, Any]:
    """What is to be said where a tier answers."""
    decision = engine.route(request, tau=0.2, **options)
    index = decision.bundle.names.index(TIERS[tier])
    return {
        "candidate": TIERS[tier],
        "cause": cause,
        "x-ipr-quality": pytest.approx(float(decision.qualities[index]), abs=1e-4),
        "x-ipr-cost-usd": pytest.approx(decision.usd_of(index), rel=1e-5),
    }


def test_a_missing_bundle_is_seen_and_no_outage(proxy, upstream):
    reply = proxy.chat("broken", PROMPTS[0])
    assert reply.status == 200
    assert reply.headers["x-litellm-complexity-router-cause"] == "default_model_fallback"
    assert "no-bundle-here" in reply.headers["x-ipr-error"]
    assert "x-ipr-candidate" not in reply.headers
    assert served(upstream) == ["mid"]
    assert "no decision is made until this bundle can be loaded" in proxy.printed()


def test_a_prompt_that_cannot_be_decided_is_seen_and_no_outage(proxy, upstream):
    reply = proxy.chat("auto", PROMPTS[0], {"x-ipr-allowed": "tiny"}, tools=[TOOL])
    assert (reply.status, served(upstream)) == (200, ["mid"])
    assert "'tools'" in reply.headers["x-ipr-error"]


def test_without_its_callback_a_classifier_decides_by_the_messages(proxy, upstream, engine):
    reply = proxy.chat("unseen", PROMPTS[1], {"x-ipr-tau": "1"})
    assert reply.headers["x-litellm-complexity-router-cause"] == "classifier_plugin"
    assert served(upstream) == [chosen(engine, PROMPTS[1], 1.0)]


def test_without_its_callback_a_wrong_control_is_logged_and_falls_back(proxy, upstream):
    reply = proxy.chat("unseen", PROMPTS[1], {"x-ipr-tau": "9.75"})
    assert (reply.status, served(upstream)) == (200, ["mid"])
    assert reply.headers["x-litellm-complexity-router-cause"] == "default_model_fallback"
    assert "no decision: x-ipr-tau: expected a value in [0, 1], got 9.75" in proxy.printed()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_group_is_narrowed_to_the_engines_choice(proxy, upstream, engine, prompt):
    reply = proxy.chat("pool", prompt, {"x-ipr-tau": "0.3"})
    assert served(upstream) == [chosen(engine, prompt, 0.3)]
    assert reply.headers["x-ipr-candidate"] == TIERS[served(upstream)[0]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("failed", [0, 1, 2])
@pytest.mark.parametrize(("path", "limits", "asked"), CALLS)
def test_retries_of_a_group_go_down_the_ranking(proxy, upstream, engine, path, limits, asked, failed, stream):
    request = {**limits, **asked}
    decision = engine.route(request, tau=0.2, allowed=list(TIERS.values()))
    order = [next(tier for tier, name in TIERS.items() if name == candidate) for candidate in decision.ranked]
    for tier in order[:failed]:
        upstream.fail(f"up-{tier}", "status", status=503)
    reply = proxy.post(path, {"model": "pool", **request, "stream": stream})
    assert (reply.status, served(upstream)) == (200, order[: failed + 1]), reply.text
    cause = "fallback" if failed else decision.cause
    assert told_of(reply) == predicted(engine, request, order[failed], cause, allowed=list(TIERS.values()))


@pytest.mark.parametrize("how", ["close", "status"])
def test_a_stream_that_fails_before_its_first_byte_is_told_of_as_who_gave_it(proxy, upstream, engine, how):
    decision = engine.route(
        {"messages": [{"role": "user", "content": PROMPTS[0]}]}, tau=0.2, allowed=list(TIERS.values())
    )
    first, second = (next(tier for tier, name in TIERS.items() if name == one) for one in decision.ranked[:2])
    upstream.fail(f"up-{first}", how)
    reply = proxy.chat("pool", PROMPTS[0], stream=True)
    assert (reply.headers["x-ipr-candidate"], reply.headers["x-ipr-cause"]) == (TIERS[second], "fallback")
    words = [event["choices"][0]["delta"].get("content") for event in reply.events[:-1]]
    assert "".join(word for word in words if word) == f"Answered by up-{second}."


def test_a_wrong_control_for_a_group_is_refused(proxy, upstream):
    reply = proxy.chat("pool", PROMPTS[0], {"x-ipr-tau": "2"})
    assert (reply.status, reply.body["error"]["param"]) == (400, "x-ipr-tau")
    assert upstream.seen() == []


def test_what_the_plugin_does_not_know_passes(proxy, upstream):
    assert proxy.chat("strange", PROMPTS[0]).status == 200
    assert proxy.chat("m-large", PROMPTS[0]).status == 200
    reply = proxy.post("/v1/embeddings", {"model": "embeddings", "input": "text"})
    assert (reply.status, reply.body["data"][0]["embedding"]) == (200, [0.0, 1.0])
    assert served(upstream)[1:] == ["large", "embedder"]
    assert "x-ipr-candidate" not in reply.headers


def metric(proxy: LiteLLMProxy, outcome: str, detail: str) -> float:
    name = f'ipr_litellm_requests_total{{detail="{detail}",outcome="{outcome}"}}'
    lines = [line for line in proxy.get("/metrics/").text.splitlines() if line.startswith(name)]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def test_what_became_of_requests_is_counted_in_litellms_metrics(proxy, engine):
    tier = chosen(engine, PROMPTS[0], 0.2)
    asked = [("decided", TIERS[tier]), ("refused", ""), ("undecided", "BundleNotFoundError")]
    before = [metric(proxy, *one) for one in asked]
    proxy.chat("auto", PROMPTS[0])
    proxy.chat("auto", PROMPTS[0], {"x-ipr-tau": "2"})
    proxy.chat("broken", PROMPTS[0])
    assert [metric(proxy, *one) - was for one, was in zip(asked, before, strict=True)] == [1, 1, 1]


def test_requests_at_once_keep_their_own_controls(proxy, engine):
    taus = [0.0, 0.25, 0.5, 0.75, 1.0] * 8
    asked = [(PROMPTS[n % len(PROMPTS)], tau) for n, tau in enumerate(taus)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda one: proxy.chat("auto", one[0], {"x-ipr-tau": str(one[1])}), asked))
    expected = [(TIERS[chosen(engine, prompt, tau)], tau) for prompt, tau in asked]
    assert [(reply.headers["x-ipr-candidate"], float(reply.headers["x-ipr-tau"])) for reply in replies] == expected


def test_requests_of_one_connection_keep_their_own_controls(proxy):
    with proxy.connection() as connection:
        told = [proxy.chat("auto", PROMPTS[0], {"x-ipr-tau": tau}, over=connection) for tau in ("0", "1")]
        last = proxy.chat("m-large", PROMPTS[0], over=connection)
    assert [reply.headers["x-ipr-tau"] for reply in told] == ["0", "1"]
    assert "x-ipr-tau" not in last.headers


def test_no_prompt_is_in_the_log(proxy):
    secret = "zebra quartz waltz"
    assert proxy.chat("auto", secret).status == 200
    assert proxy.chat("auto", secret, {"x-ipr-tau": "9"}).status == 400
    assert proxy.chat("broken", secret).status == 200
    assert "quartz" not in proxy.printed()
