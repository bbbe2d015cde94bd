"""A decision is told in headers that any server may send."""

from __future__ import annotations

import pytest

from ipr_engine import Engine
from ipr_engine.decision.reply_headers import header_value, reply_headers
from ipr_engine.policy.best_position import best_position


def test_what_is_told_is_the_candidates(default_engine: Engine) -> None:
    decision = default_engine.route("What is 17 * 23?", tau=0.5)
    best = best_position(decision.policy, decision.bundle)
    assert best is not None
    index = decision.bundle.names.index(decision.ranked[1])
    saved = decision.saved_usd(best, index)
    assert saved == decision.usd_of(best) - decision.usd_of(index)
    told = reply_headers(decision, index, saved, 7)
    assert told == {
        "x-ipr-tau": "0.5",
        "x-ipr-quality": f"{decision.qualities[index]:.4f}",
        "x-ipr-cost-usd": f"{decision.usd_of(index):.6g}",
        "x-ipr-bundle": decision.bundle_hash[:16],
        "x-ipr-saved-usd": f"{saved:.6g}",
        "x-ipr-support": f"{decision.support:.3f}",
        "x-ipr-assumed-tokens": "7",
    }
    plain = reply_headers(decision, index, None)
    assert plain.keys() == told.keys() - {"x-ipr-saved-usd", "x-ipr-assumed-tokens"}


def test_without_a_promise_the_best_single_candidate_is_found(default_engine: Engine) -> None:
    promised, plain = default_engine.policy(tau=0.5), default_engine.policy(tau=0.5, rule="minmax")
    assert plain.promise is None
    assert best_position(plain, default_engine.bundle) == best_position(promised, default_engine.bundle)


def test_nothing_is_saved_against_one_that_could_not_serve(default_engine: Engine) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    request = {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is it"}, image]}]}
    decision = default_engine.route(request, tau=1.0, billed_tokens=1000)
    assert decision.saved_usd(None, decision.index) is None
    unable = [m for m in range(len(decision.bundle.names)) if decision.unable(m) is not None]
    assert unable
    assert all(decision.saved_usd(m, decision.index) is None for m in unable)


@pytest.mark.parametrize(
    ("text", "value"), [("plain 7", "plain 7"), ("a\r\nb: c", "a??b: c"), ("caf\u00e9 \u2026", "caf? ?"), ("", "")]
)
def test_a_header_holds_printable_ascii(text: str, value: str) -> None:
    assert header_value(text) == value
