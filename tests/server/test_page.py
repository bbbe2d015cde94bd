"""The page at `/`, in headless Chromium: a real server, real requests; what it shows is what the engine says, and what was counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipr_engine import Engine
from tests.support.bundles import make_bundle
from tests.support.chromium import Chromium
from tests.support.page_readings import KEY, LEFT_OUT, LIVE, NARROW, PROMPTS, TAU, WIDE, asking, figures
from tests.support.server_configs import CHAT
from tests.support.server_process import ServerProcess, until
from tests.support.skips import SERVE
from tests.support.upstream_stub import UpstreamStub


@pytest.fixture(scope="module")
def deciding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A decision server that has a tenant, and was asked nothing."""
    pytest.importorskip("uvicorn", reason=SERVE)
    config = {"tenants": [{"name": "one", "keys_env": ["TEST_KEY"]}, {"name": "other", "keys_env": ["TEST_OTHER"]}]}
    keys = {"TEST_KEY": KEY, "TEST_OTHER": "another-key"}
    with ServerProcess(tmp_path_factory.mktemp("deciding"), config, environment=keys) as server:
        yield server


def test_it_shows_where_requests_went_and_what_they_cost(
    page: Chromium, served: ServerProcess, default_engine: Engine
) -> None:
    overview = served.get("/ipr/overview").body
    by_candidate: dict[str, int] = {}
    for name, _, count in overview["totals"]["routed"]:
        by_candidate[name] = by_candidate.get(name, 0) + count
    counted = sum(by_candidate.values())
    shown = page.text("#figures")
    assert counted >= len(PROMPTS)
    assert figures(shown.splitlines()[1]) == [counted]
    cost = sum(value for name, value in served.metrics().items() if name.startswith("ipr_cost_usd_total"))
    assert figures(shown[shown.index("$") :])[0] == pytest.approx(cost, rel=6e-3)
    for name, count in by_candidate.items():
        row = page.read(
            f"[...document.querySelectorAll('#share tbody tr')].find(row => row.innerText.includes('{name}')).innerText"
        )
        assert f"{round(100 * count / counted)} %" in row
    promise = default_engine.policy(tau=TAU, exclude=[LEFT_OUT]).promise
    assert promise is not None
    told = page.read("document.querySelector('#curve svg').getAttribute('aria-label')")
    assert figures(told)[:1] == [pytest.approx(promise.quality, abs=6e-4)]
    assert f"${1000 * promise.cost_usd:.3f}" in told
    assert served.get("/ready").body["bundle"] in page.text("#foot")


def test_candidates_alone_stand_in_the_chart_where_tau_speaks_of_them(
    served: ServerProcess, default_engine: Engine
) -> None:
    overview = served.get("/ipr/overview").body
    promise = default_engine.policy(tau=TAU, exclude=[LEFT_OUT]).promise
    assert promise is not None
    alone = {one["name"]: one for one in overview["candidates"]}
    assert alone[promise.best]["quality"] == pytest.approx(promise.best_quality)
    assert alone[promise.best]["usd_per_1k"] == pytest.approx(1000 * promise.best_usd)
    assert alone[promise.cheapest]["quality"] == pytest.approx(promise.cheapest_quality)
    assert "none is configured" in alone[LEFT_OUT]["out"]
    for tau, quality, usd in overview["curve"][::10]:
        there = default_engine.policy(tau=tau, exclude=[LEFT_OUT]).promise
        assert there is not None
        assert (quality, usd) == (pytest.approx(there.quality), pytest.approx(1000 * there.cost_usd))


def test_an_upstream_that_fails_is_seen(
    browser: Chromium, provider: UpstreamStub, served: ServerProcess, default_engine: Engine
) -> None:
    prompt = PROMPTS[0]
    chosen = default_engine.route(prompt, default_engine.policy(tau=TAU, exclude=[LEFT_OUT])).model
    provider.fail(chosen, "status", status=503)
    try:
        for _ in range(2):
            assert served.post("/v1/chat/completions", asking(prompt)).status == 200
        browser.open(f"{served.url}/", WIDE)
        browser.until(LIVE)
        row = browser.read(
            f"[...document.querySelectorAll('#health tbody tr')].find(row => row.innerText.includes('{chosen}')).innerText"
        )
        assert "status 503 2" in row
        assert "passed over" in row or "probes" in row
        assert "fallback 2" in browser.text("#share")
        assert "answered by" in browser.text("#strips")
    finally:
        provider.reset()
    assert served.post("/v1/chat/completions", asking("x", model=chosen)).status == 200  # a probe: it is up again


def test_one_candidate_alone_is_a_point_in_the_chart(browser: Chromium, default_engine: Engine, tmp_path: Path) -> None:
    for name in default_engine.bundle.names[:4]:
        if (promise := default_engine.policy(tau=TAU, allowed=[name]).promise) is None:
            continue
        config = {"policy": {"tau": TAU, "allowed": [name]}}
        with ServerProcess(tmp_path / name, config) as server:
            browser.open(f"{server.url}/", WIDE)
            browser.until(LIVE)
            told = browser.read("document.querySelector('#curve svg').getAttribute('aria-label')")
            assert figures(told)[:1] == [pytest.approx(promise.quality, abs=6e-4)]
            assert browser.read("document.querySelectorAll('#curve .axis').length") < 20
            assert browser.read("document.getElementById('trouble').hidden")
            assert browser.complaints == []


def test_what_a_bundle_without_path_rows_cannot_know_is_no_figure(browser: Chromium, tmp_path: Path) -> None:
    make_bundle(tmp_path)
    with ServerProcess(tmp_path, {"policy": {"tau": TAU}}, "--bundle", str(tmp_path / "bundles")) as server:
        assert server.post("/v1/route", {"prompt": "What is 17 * 23?"}).status == 200
        browser.open(f"{server.url}/", WIDE)
        browser.until(LIVE)
        told = browser.text("#figures")
        assert told[told.index("Predicted saving") :].splitlines()[1] == "–"
        assert "the best single candidate is not known" in told
        assert browser.text("#sharenote") == "In the bundle's order: what each would cost alone is not known."
        assert browser.complaints == []


def test_a_fault_of_the_page_is_not_said_to_be_the_servers(page: Chromium) -> None:
    page.read("take = () => { throw new Error('a fault of mine'); }; void refresh()")
    page.until("!document.getElementById('trouble').hidden")
    assert page.text("#trouble") == "This page cannot show what the server answered: a fault of mine."
    assert page.text("#live") == "Live."
    assert any("a fault of mine" in said for said in page.complaints)
    page.forget()


def test_what_was_refused_is_told_apart_from_what_failed(
    browser: Chromium, provider: UpstreamStub, default_engine: Engine, tmp_path: Path
) -> None:
    name = default_engine.bundle.names[0]
    config = {
        "endpoints": {"provider": {"base_url": f"{provider.url}/v1", "formats": [CHAT]}},
        "upstreams": {name: "provider"},
    }
    try:
        with ServerProcess(tmp_path, config) as server:

            def shown() -> dict[str, list[str]]:
                browser.open(f"{server.url}/", WIDE)
                browser.until(LIVE)
                rows = "[...document.querySelectorAll('#figures div')].map(one => one.innerText.split('\\n'))"
                return {title: told for title, *told in browser.read(rows)}

            assert server.post("/v1/chat/completions", asking("one")).status == 200
            told = shown()
            assert told["Refused requests"] == ["0", "of 1 reply"]
            assert told["Failed replies"] == ["0", "of 1 reply"]
            assert browser.text("#totalnote") == ""
            for wrong, status in (({"ipr": {"tau": 2}}, 400), ({"model": "nobody"}, 404), ({"ipr": {"tau": 3}}, 400)):
                assert server.post("/v1/chat/completions", asking("two", **wrong)).status == status
            told = shown()
            assert told["Refused requests"] == ["3", "400: 2, 404: 1"]
            assert told["Failed replies"] == ["0", "of 4 replies"]
            provider.fail(name, "cut", times=1)
            assert b"broke off" in server.post("/v1/chat/completions", asking("three", stream=True)).content
            provider.fail(name, "close")
            assert server.post("/v1/chat/completions", asking("four")).status == 502
            told = shown()
            assert told["Refused requests"][0] == "3"
            assert told["Failed replies"] == ["2", "502: 1, cut off: 1"]
            said = browser.text("#totalnote")
            assert "wrong or not allowed (4xx)" in said
            assert "broke off in its middle" in said
            assert server.get("/ipr/overview").body["totals"]["cut"] == 1
            provider.fail(name, "pace", seconds=0.8)
            with server.streamed("/v1/chat/completions", asking("five", stream=True)) as answer:
                assert answer.read1()
            left = 'ipr_requests_total{path="/v1/chat/completions",status="499"'
            until(lambda: any(sample.startswith(left) for sample in server.metrics()))
            told = shown()
            assert (told["Refused requests"][0], told["Failed replies"][0]) == ("3", "2")
            assert "1 client left before the reply was whole." in browser.text("#totalnote")
    finally:
        provider.reset()


def test_nothing_asked_yet_is_said_and_a_key_is_asked_for(browser: Chromium, deciding: ServerProcess) -> None:
    browser.open(f"{deciding.url}/", NARROW)
    browser.until("!document.getElementById('keyform').hidden")
    assert browser.text("#live") == "A key is needed."
    assert browser.read("document.getElementById('main').hidden")
    for key, said in (("wrong", "does not know this key"), (KEY, "")):
        browser.tab_to("key")
        browser.type(key)
        browser.press("Enter")
        browser.until(f"document.getElementById('trouble').textContent.includes('{said}') && key === '{key}'")
    browser.until(LIVE)
    assert "No request has been routed yet." in browser.text("#totals")
    assert "No decision has been recorded yet." in browser.text("#taunote")
    assert "tenant one" in browser.text("#what")
    assert browser.read("document.documentElement.scrollWidth") == NARROW
    assert browser.read("[localStorage.length, sessionStorage.length, document.cookie, location.href]") == [
        0,
        0,
        "",
        f"{deciding.url}/",
    ]
    assert all("status of 401" in said for said in browser.complaints)


def test_a_tenant_sees_its_own_requests_alone(deciding: ServerProcess) -> None:
    mine, other = {"authorization": f"Bearer {KEY}"}, {"authorization": "Bearer another-key"}
    assert deciding.get("/ipr/overview").status == 401
    for prompt in ("a canary prompt: zymurgy", "and its sequel"):
        assert deciding.post("/v1/route", {"prompt": prompt}, other).status == 200
    seen = deciding.get("/ipr/overview", other)
    assert len(seen.body["recent"]["decisions"]) == sum(n for *_, n in seen.body["totals"]["routed"]) == 2
    assert seen.body["totals"]["cost_usd"] > 0
    assert b"zymurgy" not in seen.content
    nothing = deciding.get("/ipr/overview", mine).body
    assert nothing["recent"]["decisions"] == nothing["totals"]["routed"] == []
    assert nothing["totals"]["cost_usd"] == 0


def test_a_server_that_is_gone_is_said_and_the_figures_stay(browser: Chromium, tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {}) as server:
        server.post("/v1/route", {"prompt": PROMPTS[0]})
        browser.open(f"{server.url}/", WIDE)
        browser.until(LIVE)
        assert "decisions alone" in browser.text("#what")
    browser.until("!document.getElementById('trouble').hidden")
    assert browser.text("#live") == "Not connected."
    assert "The server does not answer. The figures are those of" in browser.text("#trouble")
    assert figures(browser.text("#figures").splitlines()[1]) == [1]


@pytest.mark.slow
def test_totals_are_of_all_workers_and_the_page_says_whose_decisions_it_lists(
    browser: Chromium, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path, {}, "--workers", "2") as server:
        for number in range(40):
            assert server.post("/v1/route", {"prompt": f"What is {number} + 1?"}).status == 200
        browser.open(f"{server.url}/")
        browser.until("seen && seen.totals.routed.reduce((sum, one) => sum + one[2], 0) === 40")
        browser.until(LIVE)
        assert "worker" in browser.text("#taunote")
        assert browser.read("recorded().length") <= 40
