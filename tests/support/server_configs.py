"""These configs and bodies are what the tests of the server share: a gateway of the default bundle's candidates, and who asks it."""

from __future__ import annotations

from typing import Any

CHAT, RESPONSES, MESSAGES = "openai-chat", "openai-responses", "anthropic-messages"
PATHS = {CHAT: "/v1/chat/completions", RESPONSES: "/v1/responses", MESSAGES: "/v1/messages"}
OPENAI = ("gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18")
ANTHROPIC = ("claude-3-5-sonnet-20241022", "claude-3-5-haiku-20241022", "claude-3-haiku-20240307")
EVERY = ("gemini-1.5-flash", "llama-3.1-405b-instruct", "llama-3.1-70b-instruct", "llama-3.1-8b-instruct")
REFUSING = "mistral-large-2407"
"""Nobody listens where it should answer; the model `refusing` alone may choose it."""
HASTY = "llama-3.1-70b-instruct"
"""It has `HASTY_S` to its first byte and between two pieces; the model `hasty` chooses it before another one."""
NOT_CONFIGURED = "gemini-1.5-pro"
SPEAKERS = {CHAT: (*OPENAI, *EVERY), RESPONSES: (*OPENAI, *EVERY), MESSAGES: (*ANTHROPIC, *EVERY)}
"""Who may answer each format, as the model `auto`."""
CALLED = {"llama-3.1-8b-instruct": "provider/llama-8b"}
"""Candidates that their endpoint knows by another name."""
TEAM_KEY, NARROW_KEY, PLAIN_KEY = "team-key-canary-7f3a91", "narrow-key-canary-0b5c22", "plain-key-canary-e91d60"
PROVIDER_KEY = "provider-key-canary-44aa07"
KEYS = {"TEST_PROVIDER_KEY": PROVIDER_KEY, "TEST_TEAM": TEAM_KEY, "TEST_NARROW": NARROW_KEY, "TEST_PLAIN": PLAIN_KEY}
HASTY_S = 0.7
COOL_S = 1.5
PROMPTS = (
    "What is 2+2?",
    "Prove that there are infinitely many primes, then write a sieve in Haskell.",
    "Translate 'good morning' into Greek.",
)


def gateway_config(upstream: str, nobody: str) -> dict[str, Any]:
    """Return the config of a gateway whose upstreams are at two addresses; nobody listens at the second."""
    common = {"base_url": f"{upstream}/v1", "api_key_env": "TEST_PROVIDER_KEY"}
    every = {**common, "formats": [CHAT, RESPONSES, MESSAGES]}
    endpoints = {
        "openai": {**common, "formats": [CHAT, RESPONSES]},
        "anthropic": {**common, "formats": [MESSAGES]},
        "every": every,
        "hasty": {**every, "timeouts": {"first_byte_s": HASTY_S, "whole_s": HASTY_S, "idle_s": HASTY_S}},
        "refusing": {"base_url": f"{nobody}/v1", "formats": [CHAT]},
    }
    upstreams: dict[str, Any] = dict.fromkeys(OPENAI, "openai") | dict.fromkeys(ANTHROPIC, "anthropic")
    upstreams |= dict.fromkeys(EVERY, "every") | {HASTY: "hasty", REFUSING: "refusing"}
    upstreams |= {name: {"endpoint": upstreams[name], "model": called} for name, called in CALLED.items()}
    return {
        "endpoints": endpoints,
        "upstreams": upstreams,
        "policy": {"tau": 0.2},
        "models": {
            "auto": {"exclude": [REFUSING]},
            "best": {"tau": 0.0, "exclude": [REFUSING]},
            "hasty": {"tau": 0.0, "allowed": [HASTY, EVERY[0]]},
            "refusing": {"tau": 0.0, "allowed": [REFUSING, EVERY[0]]},
        },
        "tenants": [
            {"name": "team", "keys_env": ["TEST_TEAM"], "tags": {"cost_centre": "42"}},
            {"name": "narrow", "keys_env": ["TEST_NARROW"], "policy": {"allowed": list(EVERY)}, "controls": ["tau"]},
            {"name": "plain", "keys_env": ["TEST_PLAIN"], "controls": []},
        ],
        "server": {
            "log_requests": True,
            "cool_down": {"failures": 2, "seconds": COOL_S, "most_seconds": 2 * COOL_S},
            "limits": {"reply_bytes": 1 << 20},
        },
    }


def body_of(form: str, prompt: str = PROMPTS[0], model: str = "auto", **more: Any) -> dict[str, Any]:
    """Return a request of a format."""
    if form == RESPONSES:
        return {"model": model, "input": prompt, **more}
    turns = {"messages": [{"role": "user", "content": prompt}]}
    return {"model": model, **turns, **({"max_tokens": 64} if form == MESSAGES else {}), **more}
