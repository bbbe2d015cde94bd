"""These tables hold mistakes in a config of the server, one a row, and what is told of each."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

SECRET = "s3cret-canary-4f"
WHOLE: dict[str, Any] = {
    "endpoints": {"openai": {"base_url": "https://api.example/v1", "formats": ["openai-chat", "openai-responses"]}},
    "upstreams": {"gpt": "openai"},
    "tenants": [{"name": "search", "keys_env": ["SEARCH_KEY"]}],
}

TEXTS = {
    "a key twice at the top": ("policy: {}\nmodels: {auto: {}}\npolicy: {}", "line 3: 'policy' stands on line 1 too"),
    "a key twice below": ("policy:\n  tau: 0.1\n  'tau': 0.2", "line 3: 'tau' stands on line 2 too; give it once"),
    "a key twice in braces": ("models: {auto: {}, auto: {tau: 0.1}}", "line 1: 'auto' stands on line 1 too"),
    "a tab": ("policy:\n\ttau: 0.1", "line 2: is not YAML as it is read here: indent by blanks"),
    "an open brace": ("policy: {tau: 0.1", "is not YAML as it is read here: check indentation"),
    "a tag": (f"policy: !env {SECRET}", "tags such as !env have no meaning here"),
    "an alias that is none": (f"policy: *{SECRET}", "quote what begins with *"),
    "an alias that holds itself": ("policy: &p {tau: *p}", "an alias holds itself"),
    "two documents": ("policy: {}\n---\nmodels: {}", "line 2: is not YAML as it is read here: a second document"),
    "nothing": ("# nothing yet", "is empty; expected keys such as endpoints and upstreams"),
    "a list": ("- policy", "expected keys such as endpoints and upstreams at its top"),
    "a text": (SECRET, "expected keys such as endpoints and upstreams at its top"),
    "a list as a key": ("? [a]\n: b", "line 1: a list or an object stands where a key is expected"),
    "braces of a template": ("policy: {{ tau }}", "a list or an object stands where a key is expected; quote"),
    "a date": ("policy: {tau: 2026-11-28}", "policy.tau: is a date to YAML; quote it"),
    "a date as a key": ("models: {2026-11-28: {}}", "models: a key is empty or a date to YAML; quote it"),
    "a date that is none": ("policy: {tau: 2026-02-30}", "looks like a date or a number to YAML and is none"),
    "a number as a key": ("upstreams: {4: openai}", "upstreams: the key 4 is a number to YAML; quote it"),
    "on as a key": ("models: {on: {}}", "models: a key is true or false to YAML, as yes, no, on and off are; quote it"),
    "no key": ("policy: {~: 0.1}", "policy: a key is empty or a date to YAML; quote it"),
    "braces without end": ("policy: " + "[" * 5000, "is nested too deeply"),
    "no value": ("policy:\nmodels: {auto: {}}", "policy: has no value; expected an object, or leave it out"),
}
"""What a file holds -> what is told of it."""


def at(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Return what sets a value in a config; an empty path between dots, `tenants..name`, is the only item of a list."""

    def change(config: dict[str, Any]) -> None:
        *parts, last = path.split("/")
        held: Any = config
        for part in parts:
            held = held[int(part)] if isinstance(held, list) else held.setdefault(part, {})
        held[last] = value

    return change


OPENAI, TENANT, LIMITS, SERVICE = "endpoints/openai", "tenants/0", "server/limits", "server/service"
ADDRESS = "endpoints.openai.base_url: "
KEY_HEADER = (
    "holds a key, and headers are no secrets: name the environment variable in api_key_env, and the header in "
    "api_key_header where it is not the format's own"
)
WRONG: list[tuple[str, object, str]] = [
    # the form of the document
    (
        "polcy",
        {},
        "polcy: is no key here; known: endpoints, upstreams, policy, models, tenants, records, exploration, shadow, server",
    ),
    (f"{OPENAI}/api_key", SECRET, "endpoints.openai.api_key: is no key here; known: base_url, formats, api_key_env"),
    (
        f"{OPENAI}/timeouts",
        {"connect": 1},
        "openai.timeouts.connect: is no key here; known: connect_s, first_byte_s, whole_s, idle_s",
    ),
    (
        "upstreams/gpt",
        {"endpoint": "openai", "modle": "x"},
        "upstreams.gpt.modle: is no key here; known: endpoint, model, body",
    ),
    ("upstreams/gpt", {"model": "x"}, "upstreams.gpt.endpoint: is missing; expected text"),
    ("upstreams/gpt", ["openai"], "upstreams.gpt: expected an object of endpoint, model, body, or text"),
    ("upstreams/gpt", 4, "upstreams.gpt: expected an object of endpoint, model, body, or text; quote it"),
    ("upstreams", ["gpt"], "upstreams: expected an object"),
    ("endpoints/openai", {"formats": ["openai-chat"]}, "endpoints.openai.base_url: is missing; expected text"),
    ("endpoints/openai", "https://h/v1", "endpoints.openai: expected an object of base_url, formats, api_key_env"),
    (f"{OPENAI}/formats", "openai-chat", "endpoints.openai.formats: expected a list, such as [openai-chat]"),
    (
        f"{OPENAI}/formats",
        ["xml"],
        "endpoints.openai.formats[0]: expected one of openai-chat, openai-responses, anthropic-messages",
    ),
    (f"{OPENAI}/formats", [], "endpoints.openai.formats: expected at least one of openai-chat"),
    (f"{OPENAI}/headers", ["x: y"], "endpoints.openai.headers: expected an object"),
    (f"{OPENAI}/headers", {"x-team": 4}, "endpoints.openai.headers.x-team: expected text; quote it"),
    (f"{OPENAI}/timeouts/connect_s", "2", "connect_s: expected a number, not text; write it without quotes"),
    (f"{OPENAI}/timeouts/connect_s", 0, "endpoints.openai.timeouts.connect_s: expected a number > 0"),
    (f"{OPENAI}/timeouts/connect_s", float("inf"), "endpoints.openai.timeouts.connect_s: expected a number > 0"),
    (f"{OPENAI}/timeouts/connect_s", True, "endpoints.openai.timeouts.connect_s: expected a number"),
    ("tenants", {"name": "a"}, "tenants: expected a list of objects, such as [{name: ...}]"),
    ("tenants", ["a"], "tenants[0]: expected an object of name, keys_sha256, keys_env, policy, controls, tags"),
    (f"{TENANT}/key", SECRET, "tenants.search.key: is no key here; known: name, keys_sha256, keys_env"),
    (f"{TENANT}/tags", {"centre": 4711}, "tenants.search.tags.centre: expected text; quote it"),
    (
        f"{TENANT}/tags",
        {"night": False},
        "tenants.search.tags.night: expected text; quote it, as every yes, no, on and off",
    ),
    ("tenants", [{"name": "", "keys_env": ["A"]}], "tenants[0].name: expected a name of letters"),
    ("tenants", [{"keys_env": ["A"]}], "tenants[0].name: is missing; expected text"),
    ("records", "decisions.jsonl", "records: expected an object of path, key, keep_prompts"),
    ("records", {"key": "k"}, "records.path: is missing; expected text"),
    ("records", {"path": ""}, "records.path: is empty"),
    ("exploration", 1, "exploration: expected a share in [0, 1), got"),
    ("exploration", -0.1, "exploration: expected a share in [0, 1), got"),
    ("exploration", "some", "exploration: expected"),
    ("exploration", 0.1, "exploration: needs records: without them nobody would know with what chance"),
    (
        "records",
        {"path": "p", "keep_x": True},
        "records.keep_x: an embedding tells the words of its prompt, and is kept under an",
    ),
    ("records", {"path": "p", "min_words": -1}, "records.min_words: expected a whole number >= 0"),
    ("shadow", {"bundle": "b", "policy": {"tau": "low"}}, "shadow.policy.tau: expected a number, or null"),
    ("shadow", {"bundle": "b", "policy": {"tua": 1}}, "shadow.policy.tua: is no option of a policy; known: tau, rule"),
    ("shadow", {"bundle": "b", "waiting": 0}, "shadow.waiting: expected a number > 0"),
    ("server", {"log_requests": 1}, "server.log_requests: expected true or false"),
    ("server", {"log_requests": "yes"}, "server.log_requests: expected true or false"),
    ("server", {"follow_s": -1}, "server.follow_s: expected seconds >= 0"),
    ("server", {"assumed_tokens": 0}, "server.assumed_tokens: expected a whole number >= 1 and at most 1e+15, or null"),
    (
        "server",
        {"assumed_tokens": 10**30},
        "server.assumed_tokens: expected a whole number >= 1 and at most 1e+15, or null",
    ),
    ("server", {"assumed_tokens": "many"}, "server.assumed_tokens: expected a whole number, or null"),
    ("server", {"hosts": "h"}, "server.hosts: expected a list, such as [one, another]"),
    ("server", {"hosts": ["http://h"]}, "server.hosts: expected names alone"),
    ("server", {"hosts": ["h:8000"]}, "server.hosts: expected names alone"),
    ("server", {"cool_down": {"seconds": 60}}, "server.cool_down.most_seconds: expected at least as many as seconds"),
    ("policy", {"tua": 0.1}, "policy.tua: is no option of a policy; known: tau, rule"),
    ("policy", [0.1], "policy: expected an object"),
    ("policy", {"tau": [0.1]}, "policy.tau: expected a number, or null"),
    ("policy", {"tau": "0.1"}, "policy.tau: expected a number, or null, not text; write it without quotes"),
    ("policy", {"allowed": {"gpt": 1}}, "policy.allowed: expected a list, such as [one, another], or text, or null"),
    ("policy", {"batch": "yes"}, "policy.batch: expected true or false, or null"),
    ("policy", {"prices": {"gpt": 4}}, "policy.prices.gpt: expected a list of numbers, or an object"),
    (
        "policy",
        {"cost_weights": {"usd": None}},
        "policy.cost_weights.usd: has no value; expected a number, or leave it out",
    ),
    ("policy", {"tau": 0.1, "preset": "cost"}, "policy.preset: is given beside policy.tau; give one of them"),
    ("models", {}, "models: expected at least one name"),
    ("models", {"auto": {"tua": 0.1}}, "models.auto.tua: is no option of a policy; known: tau, rule"),
    ("models", {"": {}}, "models: expected a name of letters"),
    ("models", {"gpt": {}}, "models.gpt: is a candidate of upstreams too; give the alias another name"),
    (LIMITS, {"body": 4}, "server.limits.body: is no key here; known: head_bytes, head_s, body_bytes"),
    (LIMITS, {"body_bytes": 0.5}, "server.limits.body_bytes: expected a whole number"),
    (
        LIMITS,
        {"body_bytes": "1e6"},
        "server.limits.body_bytes: expected a whole number, not text; write it without quotes",
    ),
    (LIMITS, {"body_bytes": -4}, "server.limits.body_bytes: expected a number > 0"),
    (LIMITS, {"head_bytes": 100}, "server.limits.head_bytes: expected at least 8192"),
    (SERVICE, {"cache": 4}, "server.service.cache: is no key here; known: fallback, cache_entries, limits, budget_us"),
    (SERVICE, {"cache_entries": -1}, "server.service.cache_entries: expected a whole number >= 1, or 0"),
    (SERVICE, {"cache_entries": True}, "server.service.cache_entries: expected a whole number >= 1, or 0"),
    (SERVICE, {"limits": 4}, "server.service.limits: expected an object, such as {max_batch: 32}"),
    (SERVICE, {"fallback": [4]}, "server.service.fallback: expected a candidate's name, or a list of several"),
    (SERVICE, {"budget_us": 0}, "server.service.budget_us: expected microseconds > 0"),
    (SERVICE, {"budget_us": "soon"}, "server.service.budget_us: expected a number"),
    (SERVICE, {"fallback": 4}, "server.service.fallback: expected a candidate's name, or a list of several"),
    # addresses
    (f"{OPENAI}/base_url", "api.example/v1", ADDRESS + "expected http(s)://host[:port]/path, such as https://"),
    (f"{OPENAI}/base_url", "ftp://h/v1", ADDRESS + "expected http(s)://host[:port]/path, such as https://"),
    (f"{OPENAI}/base_url", "http:///v1", ADDRESS + "expected http(s)://host[:port]/path, such as https://"),
    (
        f"{OPENAI}/base_url",
        "http://h/v1/chat/completions",
        ADDRESS + "ends in /chat/completions, which is appended to it; leave it out",
    ),
    (
        f"{OPENAI}/base_url",
        "http://h/v1/responses/",
        ADDRESS + "ends in /responses, which is appended to it; leave it out",
    ),
    (
        f"{OPENAI}/base_url",
        "http://h/v1/messages",
        ADDRESS + "ends in /messages, which is appended to it; leave it out",
    ),
    (f"{OPENAI}/base_url", "http://h:99999/v1", ADDRESS + "expected a port of 1 to 65535"),
    (f"{OPENAI}/base_url", "http://h:port/v1", ADDRESS + "expected a port of 1 to 65535"),
    (f"{OPENAI}/base_url", "http://h:0/v1", ADDRESS + "expected a port of 1 to 65535"),
    (f"{OPENAI}/base_url", "http://[h/v1", ADDRESS + "expected a port of 1 to 65535, and IPv6 in brackets"),
    (f"{OPENAI}/base_url", "http://${HOST}/v1", ADDRESS + "has a blank or one of {}<>; variables are not filled in"),
    (f"{OPENAI}/base_url", "http://h /v1", ADDRESS + "has a blank"),
    (f"{OPENAI}/base_url", "http://h/v1\r\nx", ADDRESS + "has a blank"),
    (f"{OPENAI}/base_url", f"http://user:{SECRET}@h/v1", ADDRESS + "holds a user or password"),
    (f"{OPENAI}/base_url", f"http://h/v1?key={SECRET}", ADDRESS + "has a ? or #"),
    # headers
    (f"{OPENAI}/headers", {"x team": "a"}, "endpoints.openai.headers.x team: expected a header's name"),
    (f"{OPENAI}/headers", {"x-t\u00e4m": "a"}, "expected a header's name, such as x-team"),
    (f"{OPENAI}/headers", {"x-team\r\nx": "a"}, "expected a header's name, such as x-team"),
    (f"{OPENAI}/headers", {"x-team": "a\r\nx-other: b"}, "headers.x-team: expected printable ASCII on one line"),
    (f"{OPENAI}/headers", {"x-team": "caf\u00e9"}, "headers.x-team: expected printable ASCII on one line"),
    (f"{OPENAI}/headers", {"x-team": "a", "X-Team": "b"}, "headers.X-Team: stands twice but for case; give it once"),
    (f"{OPENAI}/headers", {"Content-Length": "4"}, "headers.Content-Length: is set with each request; leave it out"),
    (f"{OPENAI}/headers", {"x-team": f"Bearer {SECRET}"}, f"headers.x-team: {KEY_HEADER}"),
    (f"{OPENAI}/headers", {"x-team": f"sk-{SECRET}"}, f"headers.x-team: {KEY_HEADER}"),
    *(
        (f"{OPENAI}/headers", {name: SECRET}, f"headers.{name}: {KEY_HEADER}")
        for name in (
            *(
                "Authorization",
                "X-Api-Key",
                "api-key",
                "apikey",
                "x_api_key",
                "x-goog-api-key",
                "Ocp-Apim-Subscription-Key",
            ),
            *(
                "proxy-authorization",
                "x-auth-token",
                "x-access-token",
                "Helicone-Auth",
                "Cookie",
                "x-client-secret",
                "token",
            ),
        )
    ),
    # keys
    (
        f"{OPENAI}/api_key_env",
        f"sk-{SECRET}",
        "endpoints.openai.api_key_env: expected the name of an environment variable in capitals",
    ),
    (
        f"{OPENAI}/api_key_env",
        SECRET.replace("-", ""),
        "api_key_env: expected the name of an environment variable in capitals",
    ),
    (
        f"{OPENAI}/api_key_env",
        "${OPENAI_API_KEY}",
        "api_key_env: expected the name of an environment variable in capitals",
    ),
    (f"{OPENAI}/api_key_env", "", "api_key_env: expected the name of an environment variable in capitals"),
    (f"{OPENAI}/api_key_header", "api-key", "endpoints.openai.api_key_header: needs api_key_env"),
    (
        f"{OPENAI}/api_key_header",
        f"sk-{SECRET}",
        "endpoints.openai.api_key_header: expected a header's name, such as api-key, not a key",
    ),
    (f"{OPENAI}/api_key_header", "api key", "endpoints.openai.api_key_header: expected a header's name"),
    (f"{OPENAI}/api_key_header", "Content-Type", "endpoints.openai.api_key_header: is set with each request"),
    (
        f"{TENANT}/keys_env",
        [f"sk-{SECRET}"],
        "tenants.search.keys_env: expected the name of an environment variable in capitals",
    ),
    (f"{TENANT}/keys_env", SECRET, "tenants.search.keys_env: expected a list, such as [one, another]"),
    (f"{TENANT}/keys_sha256", [SECRET], "tenants.search.keys_sha256: expected 64 hex digits each"),
    (
        f"{TENANT}/keys_sha256",
        [sha256(b"").hexdigest().upper()],
        "tenants.search.keys_sha256: is the digest of an empty text",
    ),
    (f"{TENANT}/keys_sha256", [7 * 10**63], "tenants.search.keys_sha256[0]: expected text; quote it"),
    (
        f"{TENANT}/name",
        f"sk-{SECRET}",
        "expected a name of letters, digits and ._:/@-, at most 128, got what looks like a key",
    ),
    (f"{TENANT}/controls", ["tua"], "tenants.search.controls: expected some of tau, rule"),
    (f"{TENANT}/policy", {"tua": 1}, "tenants.search.policy.tua: is no option of a policy; known: tau"),
    (f"{TENANT}/keys_env", [], "tenants.search: has no key; give keys_sha256 or keys_env"),
    ("tenants", [{"name": "a", "keys_env": ["A"]}, {"name": "a", "keys_env": ["B"]}], "tenants.a: two have this name"),
    # who answers where
    ("upstreams/gpt", "opnai", "upstreams.gpt: expected the name of an endpoint, got 'opnai'; known: openai"),
    ("upstreams/gpt", f"sk-{SECRET}", "upstreams.gpt: expected the name of an endpoint, got what looks like a key"),
    (
        "endpoints/opnai",
        WHOLE["endpoints"]["openai"],
        "endpoints.opnai: no candidate of upstreams answers there; name it there, or leave",
    ),
    ("upstreams/gpt", "", "upstreams.gpt: is empty; write the name of an endpoint"),
    *(
        (
            "upstreams/gpt",
            {"endpoint": "openai", "body": {"openai-chat": {"seed": value}}},
            "upstreams.gpt.body.openai-chat.seed: expected what JSON can hold",
        )
        for value in (float("inf"), 10**30)
    ),
    ("upstreams/gpt", {"endpoint": "openai", "model": ""}, "upstreams.gpt.model: is empty"),
    (
        "upstreams/gpt",
        {"endpoint": "openai", "body": {"xml": {}}},
        "upstreams.gpt.body.xml: expected one of openai-chat",
    ),
    (
        "upstreams/gpt",
        {"endpoint": "openai", "body": {"top_p": 1}},
        "upstreams.gpt.body.top_p: expected one of openai-chat",
    ),
    (
        "upstreams/gpt",
        {"endpoint": "openai", "body": {"anthropic-messages": {"top_k": 1}}},
        "upstreams.gpt.body.anthropic-messages: its endpoint speaks openai-chat and openai-responses alone; leave it out",
    ),
    *(
        (
            "upstreams/gpt",
            {"endpoint": "openai", "body": {"openai-chat": {name: "x"}}},
            f"upstreams.gpt.body.openai-chat.{name}: is set for each request by its client and the server; leave it out",
        )
        for name in ("model", "stream", "messages", "input")
    ),
]
"""Where a mistake stands, what stands there -> what is told of it."""
