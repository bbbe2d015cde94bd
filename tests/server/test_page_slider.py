"""The page's slider tells what another tau would change, and stays where it is put."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine import Engine
from tests.support.chromium import Chromium
from tests.support.page_readings import LIVE, PROMPTS, TAU, WIDE, asking, figures, routed
from tests.support.server_process import ServerProcess


def tell(browser: Chromium) -> dict[str, list[float]]:
    """Return the rows of the sums: as decided, at the slider's tau."""
    rows = browser.read(
        "[...document.querySelectorAll('#sums tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    return {name: [figures(was)[0], figures(then)[0]] for name, was, then, _ in rows}


@pytest.mark.parametrize("steps", [-12, 15, 60])
def test_the_slider_moved_by_keys_tells_what_the_engine_would_choose(
    browser: Chromium, served: ServerProcess, default_engine: Engine, steps: int
) -> None:
    browser.open(f"{served.url}/", WIDE)
    browser.until(LIVE)
    browser.read(f"seen.recent.decisions.splice({len(PROMPTS)}); whatIf()")  # without prompts that another test tried
    browser.tab_to("tau")
    assert browser.read("document.activeElement.value") == str(TAU)
    browser.press("ArrowRight" if steps > 0 else "ArrowLeft", abs(steps))
    tau = round(TAU + steps / 100, 2)
    assert browser.text("#tauvalue") == f"{tau:.2f}"
    was, then = routed(default_engine, TAU), routed(default_engine, tau)
    told = tell(browser)
    assert told["mean quality"] == [
        pytest.approx(np.mean([one.quality for one in found]), abs=6e-4) for found in (was, then)
    ]
    assert told["per 1,000"] == [
        pytest.approx(1000 * np.mean([one.cost_usd for one in found]), rel=6e-3) for found in (was, then)
    ]
    changed = sum(a.model != b.model for a, b in zip(was, then, strict=True))
    assert f"{changed} of {len(PROMPTS)} decisions would change" in browser.text("#change")
    lines = browser.read("[...document.querySelectorAll('#strips .to')].map(one => one.innerText)")
    for line, a, b in zip(lines, reversed(was), reversed(then), strict=True):
        assert line.split("\n")[0].split() == [a.model, *([] if a.model == b.model else ["at", f"{tau:.2f}:", b.model])]
        assert f"predicted at {tau:.2f}: {b.quality:.3f}, $" in line


def test_what_comes_in_meanwhile_leaves_the_slider_and_the_scroll_where_they_are(
    page: Chromium, served: ServerProcess
) -> None:
    page.tab_to("tau")
    page.press("ArrowRight", 7)
    page.read("scrollTo(0, 300)")
    before = page.read("seen.recent.decisions.length")
    served.post("/v1/chat/completions", asking("How many days are in a leap year?"))
    page.until(f"seen.recent.decisions.length > {before}")
    assert page.read("[document.activeElement.id, document.getElementById('tau').value, scrollY]") == [
        "tau",
        "0.27",
        300,
    ]
