"""Where upstreams speak different formats, the page shows whom a request of the chosen one can reach, and tries prompts in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipr_engine import Engine
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from tests.support.chromium import Chromium
from tests.support.page_readings import KEY, LIVE, NARROW, PROMPTS, TAU, WIDE, figures
from tests.support.server_configs import ANTHROPIC, CHAT, MESSAGES, OPENAI, PATHS, RESPONSES, body_of
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

SAID = "What is 6 * 7, and why is it even?"


@pytest.fixture(scope="module")
def mixed(provider: UpstreamStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A gateway of two vendors, each with its own format, that has routed PROMPTS in both."""
    base = f"{provider.url}/v1"
    config = {
        "endpoints": {
            "openai": {"base_url": base, "formats": [CHAT, RESPONSES]},
            "anthropic": {"base_url": base, "formats": [MESSAGES]},
        },
        "upstreams": {**dict.fromkeys(OPENAI, "openai"), **dict.fromkeys(ANTHROPIC, "anthropic")},
        "policy": {"tau": TAU},
    }
    with ServerProcess(tmp_path_factory.mktemp("mixed"), config) as server:
        for prompt in PROMPTS:
            for form in (CHAT, MESSAGES):
                assert server.post(PATHS[form], body_of(form, prompt=prompt)).status == 200
        yield server


def choose(browser: Chromium, form: str) -> None:
    browser.read(
        f"(() => {{ const one = document.getElementById('format'); one.value = '{form}'; one.dispatchEvent(new Event('change')); }})()"
    )
    browser.until(f"seen.format === '{form}'")


def rows(browser: Chromium, table: str) -> list[list[str]]:
    found: list[list[str]] = browser.read(
        f"[...document.querySelectorAll('#{table} tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    return found


@pytest.mark.parametrize(("form", "reach"), [(CHAT, OPENAI), (MESSAGES, ANTHROPIC)])
def test_the_chosen_format_tells_candidates_curve_and_box_apart(
    browser: Chromium, mixed: ServerProcess, default_engine: Engine, form: str, reach: tuple[str, ...]
) -> None:
    browser.open(f"{mixed.url}/", WIDE)
    browser.until(LIVE)
    assert browser.read("[...document.getElementById('format').options].map(one => one.value)") == [
        CHAT,
        RESPONSES,
        MESSAGES,
    ]
    choose(browser, form)
    out = browser.read("[...document.querySelectorAll('#share tr.out th')].map(one => one.innerText)")
    assert not [name for name in reach if any(name in one for one in out)]
    other = [name for name in (*OPENAI, *ANTHROPIC) if name not in reach]
    assert all(any(name in one and "format: its upstream speaks" in one for one in out) for name in other)
    known = {name: line for line in rows(browser, "share") for name in (*OPENAI, *ANTHROPIC) if name in line[0]}
    assert all("–" not in known[name][2:] for name in known)  # what each would give and cost, in whatever format
    policy = default_engine.policy(tau=TAU, allowed=list(reach))
    assert policy.promise is not None
    told = browser.read("document.querySelector('#curve svg').getAttribute('aria-label')")
    assert figures(told)[:1] == [pytest.approx(policy.promise.quality, abs=6e-4)]
    assert browser.read("document.querySelectorAll('#curve .alone').length") == len(reach)
    browser.tab_to("prompt")
    browser.type(SAID)
    browser.press("Enter", control=True)
    browser.until("document.getElementById('explained')")
    chosen = browser.read("document.querySelector('#explained tr.chosen th').firstChild.textContent")
    assert chosen == default_engine.route(SAID, policy).model
    assert browser.complaints == []


def test_the_saving_is_against_the_best_of_each_request_and_tries_do_not_enter_it(
    browser: Chromium, mixed: ServerProcess
) -> None:
    browser.open(f"{mixed.url}/", WIDE)
    browser.until(LIVE)
    before = browser.text("#figures")
    assert "less than the best single candidate of each request" in " ".join(before.split())
    assert not [name for name in (*OPENAI, *ANTHROPIC) if name in before]
    browser.tab_to("prompt")
    browser.type(SAID)
    browser.tab_to("go")
    browser.press("Enter")
    browser.until("document.getElementById('explained')")
    totals = mixed.get("/ipr/overview").body["totals"]
    assert sum(n for *_, n in totals["routed"]) == 2 * len(PROMPTS)
    browser.until(f"seen.totals.replies[200] >= {totals['replies']['200']}")
    assert browser.text("#figures").splitlines()[:9] == before.splitlines()[:9]


def test_where_all_speak_alike_there_is_no_choice(page: Chromium) -> None:
    assert page.read("document.getElementById('formats').hidden")


def test_a_narrow_page_keeps_quality_and_formats(browser: Chromium, mixed: ServerProcess) -> None:
    browser.open(f"{mixed.url}/", NARROW)
    browser.until(LIVE)
    assert browser.read("document.documentElement.scrollWidth") == NARROW
    shown = {line[0].split("\n")[0]: line for line in rows(browser, "share")}
    overview = mixed.get("/ipr/overview").body
    for one in overview["candidates"]:
        line = next(line for name, line in shown.items() if one["name"] in name)
        if "quality" in one:
            assert f"{one['quality']:.3f}" in line[-1]
    for line, one in zip(rows(browser, "health"), overview["upstreams"], strict=True):
        assert line[0].split("\n") == [one["candidate"], ", ".join(one["formats"])]


def test_a_tenant_sees_whom_it_may_reach_and_no_attempts(
    browser: Chromium, provider: UpstreamStub, tmp_path: Path
) -> None:
    config = {
        "endpoints": {"provider": {"base_url": f"{provider.url}/v1", "formats": [CHAT]}},
        "upstreams": dict.fromkeys((*OPENAI, *ANTHROPIC), "provider"),
        "shadow": {"bundle": str(DEFAULT_BUNDLE)},
        "tenants": [
            {"name": "one", "keys_env": ["TEST_KEY"], "policy": {"family": "claude"}},
            {"name": "other", "keys_env": ["TEST_OTHER"]},
        ],
    }
    with ServerProcess(tmp_path, config, environment={"TEST_KEY": KEY, "TEST_OTHER": "another-key"}) as server:
        other = {"authorization": "Bearer another-key"}
        assert server.post(PATHS[CHAT], body_of(CHAT), other).status == 200
        browser.open(f"{server.url}/", WIDE)
        browser.until("!document.getElementById('keyform').hidden")
        browser.tab_to("key")
        browser.type(KEY)
        browser.press("Enter")
        browser.until(LIVE)
        assert [line[0].split("\n")[0] for line in rows(browser, "health")] == list(ANTHROPIC)
        heads = browser.read("[...document.querySelectorAll('#health thead th')].map(one => one.innerText)")
        assert heads == ["candidate", "state", "speaks"]
        assert "Shadow" not in browser.text("#foot")
        assert [line[1] for line in rows(browser, "health")] == ["up"] * len(ANTHROPIC)
