"""What is asked wrongly of an engine, in its terms or its prompts, is refused by the name of what is wrong."""

import pytest

from ipr_engine import InvalidInputError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"tau: missing"),
        ({"tau": 1.5}, r"tau: expected a value in \[0, 1\], got 1.5"),
        ({"tau": float("nan")}, r"tau: expected a finite number"),
        ({"tau": True}, r"tau: expected a number, got bool"),
        ({"tau": 0.1, "worth": -1.0}, r"worth: expected a value from 0 to"),
        ({"tau": 0.1, "worth": 10**400}, r"worth: expected a finite number"),
        ({"tau": 0.1, "family": []}, r"family: expected at least one"),
        ({"tau": 0.1, "exclude": ["gpt-99"]}, r"exclude: unknown 'gpt-99'"),
        ({"rules": "max"}, r"rules: unknown; known: "),
        ({"tau": 0.1, "rules": "max"}, r"rules: unknown; known: "),
        ({"tau": 0.1, "allowed": []}, r"allowed: expected at least one"),
        ({"tau": 0.1, "allowed": ["gpt-99"]}, r"allowed: unknown 'gpt-99'; known: "),
        ({"tau": 0.1, "family": "nobody"}, r"family: unknown 'nobody'"),
        ({"tau": 0.1, "requires": ["telepathy"]}, r"requires: unknown 'telepathy'"),
        ({"tau": 0.1, "prices": {"gpt-99": (1, 2)}}, r"prices: unknown 'gpt-99'"),
        ({"tau": 0.1, "on_error": "ignore"}, r"on_error: expected 'raise' or 'status'"),
        ({"tau": 0.1, "billed_tokens": -4}, r"billed_tokens: expected a whole number >= 0, got -4"),
        ({"tau": 0.1, "billed_tokens": [1, 2]}, r"billed_tokens: expected"),
        (
            {"tau": 0.1, "billed_tokens": 10**5000},
            r"billed_tokens: expected .*, got a value of type int$",
        ),  # more digits than Python writes
        ({"tau": 0.1, "tokens_out": 10**5000}, r"tokens_out: expected .*, got a value of type int$"),
        ({"tau": 0.1, "extra_usd": 10**400}, r"extra_usd: expected .*, got 1[0]{76}\.\.\.$"),
        ({"tau": 0.1, "tokens_out": [1.0, 2.0]}, r"tokens_out: expected"),
        ({"tau": 0.1, "policy": "cheap"}, r"policy: expected what engine.policy"),
    ],
)
def test_bad_arguments_are_named(engine, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        engine.route_many(["hello"], **arguments)


LONG = 300_000 * "y"
NESTED: list = []
for _ in range(1500):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "options",
    [
        {"allowed": [LONG]},
        {"allowed": 300_000 * [7]},
        {"exclude": [f"x{number}" for number in range(300_000)]},
        {"family": LONG},
        {"requires": [LONG, LONG + "x"]},
        {"rule": LONG},
        {"rule": LONG, "tau": None, "quality_share": 0.9},
        {"rule": LONG, "slack": 0.1},
        {"preset": LONG, "tau": None},
        {"unsupported": LONG},
        {"unsupported": LONG, "min_support": 0.1},
        {"cost_weights": {LONG: 1.0}},
        {"cost_weights": {f"x{number}": 1.0 for number in range(300_000)}},
        {"prices": {LONG: (1, 2)}},
        {"batch": LONG},
        {"worth": LONG},
        {"extra_usd": {LONG: 1}},
        {"extra_usd": LONG},
        {"extra_usd": NESTED},
        {"tokens_in": {"alpha/large": NESTED}},
        {"cached_tokens": [[NESTED]]},
    ],
    ids=lambda options: "-".join(options),
)
def test_an_error_repeats_little_of_what_came(engine, options):
    with pytest.raises(InvalidInputError) as caught:
        engine.route("hello", **{"tau": 0.1, **options})
    assert len(str(caught.value)) < 4000


def test_the_place_of_what_is_wrong_is_bounded(engine):
    held = "lone \ud800 surrogate"
    for _ in range(200):
        held = {"a" * 60: held}
    call = {"role": "assistant", "tool_calls": [{"id": "a", "function": held}]}
    with pytest.raises(InvalidInputError, match="got a lone surrogate") as caught:
        engine.route([{"role": "user", "content": "hello"}, call], tau=0.1)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("price", [(-1, 2), (float("nan"), 2), (1,), "1,2", ("1", 2)])
def test_bad_prices_are_named(engine, price):
    name = engine.bundle.names[0]
    with pytest.raises(InvalidInputError, match=rf"prices\['{name}'\]"):
        engine.policy(tau=0.1, prices={name: price})


@pytest.mark.parametrize(
    "prompt",
    [None, 3, b"bytes", {"role": "user"}, ["a", None], ["a", 3], [[]], "lone \ud800 surrogate", ["ok", "\udfff"]],
)
def test_bad_prompts_raise_an_error_of_ours(engine, prompt):
    with pytest.raises(InvalidInputError, match="prompt"):
        (engine.route_many if isinstance(prompt, list) else engine.route)(prompt, tau=0.1)


def test_images_need_a_given_bill_and_candidates_that_see(engine):
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {}}]}
    ]
    with pytest.raises(InvalidInputError, match=r"prompt: has a part of type 'image_url', whose tokens"):
        engine.route(chat, tau=0.1)
    sees = {candidate.name for candidate in engine.bundle.candidates if "vision" in candidate.features}
    decision = engine.route(chat, tau=0.1, billed_tokens=700)
    assert decision.billed_tokens == 700
    assert {name for name, allowed in zip(engine.bundle.names, decision.allowed, strict=True) if allowed} == sees
    assert set(decision.excluded.values()) == {"lacks vision, needed by 'image_url'"}
    assert engine.route(chat, tau=0.1, billed_tokens=700, requires="vision").model == decision.model
    with pytest.raises(
        InvalidInputError, match=r"needs 'vision' for its image_url, and no candidate that the policy allows"
    ):
        engine.route(chat, tau=0.1, billed_tokens=700, exclude=sorted(sees))


@pytest.mark.parametrize("prompt", ["", "   ", "\x00\x01", [{"role": "user", "content": " "}]])
def test_a_prompt_without_one_token_is_refused(engine, prompt):
    with pytest.raises(InvalidInputError, match=r"prompt: expected text, got .* without one token"):
        engine.route(prompt, tau=0.1)
    if isinstance(prompt, str):
        with pytest.raises(InvalidInputError, match=r"prompts\[1\]: expected text"):
            engine.route_many(["fine", prompt], tau=0.1)
