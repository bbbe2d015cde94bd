"""The page's box explains a prompt as the engine does, and says what is wrong in words."""

from __future__ import annotations

import pytest

from ipr_engine import Engine
from tests.support.chromium import Chromium
from tests.support.page_readings import LEFT_OUT, figures


def test_the_box_explains_every_candidate(page: Chromium, default_engine: Engine) -> None:
    prompt, tau = "What is 6 * 7, and why is it even?", 0.35
    page.tab_to("prompt")
    page.type(prompt)
    page.tab_to("trytau")
    page.type(str(tau))
    page.press("Enter")
    page.until("document.getElementById('explained')")
    policy = default_engine.policy(tau=tau, exclude=[LEFT_OUT])
    explained = default_engine.explain(prompt, policy)
    assert page.text("#summary").startswith(explained.summary)
    rows = page.read(
        "[...document.querySelectorAll('#explained tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert [row[0].startswith(view.name) for row, view in zip(rows, explained.candidates, strict=True)] == [True] * len(
        rows
    )
    for row, view in zip(rows, explained.candidates, strict=True):
        assert figures(row[1])[0] == pytest.approx(view.quality, abs=6e-4)
        assert figures(row[2])[0] == pytest.approx(view.cost_usd, rel=6e-3)
        state = explained.state(view)
        assert row[5] == ("upstream: none is configured" if view.name == LEFT_OUT else state)
    before = page.read("seen.totals.routed.reduce((sum, one) => sum + one[2], 0)")
    page.until(f"seen.totals.routed.reduce((sum, one) => sum + one[2], 0) >= {before}")
    assert prompt not in page.read("JSON.stringify(seen)")


def test_a_wrong_control_is_said_in_words(page: Chromium) -> None:
    page.read("document.getElementById('trytau').removeAttribute('max')")
    page.tab_to("prompt")
    page.type("anything")
    page.tab_to("trytau")
    page.type("7")
    page.press("Enter")
    page.until("document.querySelector('#tried .trouble')")
    assert "tau" in page.text("#tried")
    assert all("status of 400" in said for said in page.complaints)  # the browser's own line on the reply
    page.forget()
