"""The page at `/`, in headless Chromium: a real server, real requests, the keyboard; what it shows is what the engine says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipr_engine import Engine
from tests.support import bundles
from tests.support.chromium import PROGRAM, Chromium
from tests.support.path_rows import make_path_bundle
from tests.support.server_configs import CHAT
from tests.support.server_process import ServerProcess
from tests.support.skips import CHROMIUM, SERVE
from tests.support.upstream_stub import UpstreamStub

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason=CHROMIUM),
    pytest.mark.skipif(find_spec("uvicorn") is None, reason=SERVE),
]
TAU = 0.2
LEFT_OUT = "mistral-large-2407"
PROMPTS = (
    "What is 17 * 23?",
    "Prove that there are infinitely many primes, then write a sieve in Haskell.",
    "Translate 'good morning' into Greek.",
    "def f(x):\n    return [3 * i for i in range(x)]\nprint(f(4))\nWhat does it print?",
    "Find the number of integer solutions of a^2 + b^2 <= 29 with a < 3.",
    "If Anna has 12 apples and gives 5 away, how many are left?",
)
HOSTILE = (
    "<img src=x onerror=hit=1>",
    "</script><script>hit=1</script>",
    '"><svg onload=hit=1>',
    "${hit=1}{{hit=1}}",
    "'; hit=1 //",
)
WIDE, NARROW = 1400, 380
LIVE = "document.getElementById('live').textContent === 'Live.' && !seen.recent.unread"
KEY = "a-key-of-one-tenant"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


@pytest.fixture(scope="module")
def served(provider: UpstreamStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A gateway that has routed PROMPTS; nobody failed."""
    names = [name for name in Engine.load().bundle.names if name != LEFT_OUT]
    config = {
        "endpoints": {"provider": {"base_url": f"{provider.url}/v1", "formats": [CHAT]}},
        "upstreams": dict.fromkeys(names, "provider"),
        "policy": {"tau": TAU},
    }
    with ServerProcess(tmp_path_factory.mktemp("served"), config) as server:
        for prompt in PROMPTS:
            reply = server.post("/v1/chat/completions", asking(prompt))
            assert reply.status == 200
        yield server


@pytest.fixture(scope="module")
def deciding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A decision server that has a tenant, and was asked nothing."""
    config = {"tenants": [{"name": "one", "keys_env": ["TEST_KEY"]}, {"name": "other", "keys_env": ["TEST_OTHER"]}]}
    keys = {"TEST_KEY": KEY, "TEST_OTHER": "another-key"}
    with ServerProcess(tmp_path_factory.mktemp("deciding"), config, environment=keys) as server:
        yield server


@pytest.fixture
def page(browser: Chromium, served: ServerProcess) -> Iterator[Chromium]:
    browser.open(f"{served.url}/", WIDE)
    browser.until(LIVE)
    yield browser
    assert browser.complaints == []


def asking(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": prompt}], **more}


def figures(text: str) -> list[float]:
    """Return the numbers of a text, USD without their sign."""
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\.?\d*", text)]


def routed(engine: Engine, tau: float) -> list[Any]:
    policy = engine.policy(tau=tau, exclude=[LEFT_OUT])
    return [engine.route(prompt, policy) for prompt in PROMPTS]


def tell(browser: Chromium) -> dict[str, list[float]]:
    """Return the rows of the sums: as decided, at the slider's tau."""
    rows = browser.read(
        "[...document.querySelectorAll('#sums tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    return {name: [figures(was)[0], figures(then)[0]] for name, was, then, _ in rows}


def test_it_shows_where_requests_went_and_what_they_cost(page: Chromium, served: ServerProcess, engine: Engine) -> None:
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
    promise = engine.policy(tau=TAU, exclude=[LEFT_OUT]).promise
    assert promise is not None
    told = page.read("document.querySelector('#curve svg').getAttribute('aria-label')")
    assert figures(told)[:1] == [pytest.approx(promise.quality, abs=6e-4)]
    assert f"${1000 * promise.cost_usd:.3f}" in told
    assert served.get("/ready").body["bundle"] in page.text("#foot")


def test_candidates_alone_stand_in_the_chart_where_tau_speaks_of_them(served: ServerProcess, engine: Engine) -> None:
    overview = served.get("/ipr/overview").body
    promise = engine.policy(tau=TAU, exclude=[LEFT_OUT]).promise
    assert promise is not None
    alone = {one["name"]: one for one in overview["candidates"]}
    assert alone[promise.best]["quality"] == pytest.approx(promise.best_quality)
    assert alone[promise.best]["usd_per_1k"] == pytest.approx(1000 * promise.best_usd)
    assert alone[promise.cheapest]["quality"] == pytest.approx(promise.cheapest_quality)
    assert "none is configured" in alone[LEFT_OUT]["out"]
    for tau, quality, usd in overview["curve"][::10]:
        there = engine.policy(tau=tau, exclude=[LEFT_OUT]).promise
        assert there is not None
        assert (quality, usd) == (pytest.approx(there.quality), pytest.approx(1000 * there.cost_usd))


@pytest.mark.parametrize("steps", [-12, 15, 60])
def test_the_slider_moved_by_keys_tells_what_the_engine_would_choose(
    browser: Chromium, served: ServerProcess, engine: Engine, steps: int
) -> None:
    browser.open(f"{served.url}/", WIDE)
    browser.until(LIVE)
    browser.read(f"seen.recent.decisions.splice({len(PROMPTS)}); whatIf()")  # without prompts that another test tried
    browser.tab_to("tau")
    assert browser.read("document.activeElement.value") == str(TAU)
    browser.press("ArrowRight" if steps > 0 else "ArrowLeft", abs(steps))
    tau = round(TAU + steps / 100, 2)
    assert browser.text("#tauvalue") == f"{tau:.2f}"
    was, then = routed(engine, TAU), routed(engine, tau)
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
        assert line.split("\n")[0].split() == ([a.model] if a.model == b.model else [a.model, "→", b.model])


def test_the_box_explains_every_candidate(page: Chromium, engine: Engine) -> None:
    prompt, tau = "What is 6 * 7, and why is it even?", 0.35
    page.tab_to("prompt")
    page.type(prompt)
    page.tab_to("trytau")
    page.type(str(tau))
    page.press("Enter")
    page.until("document.getElementById('explained')")
    policy = engine.policy(tau=tau, exclude=[LEFT_OUT])
    explained = engine.explain(prompt, policy)
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


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_its_window_and_can_be_read(page: Chromium, width: int, dark: bool) -> None:
    page.look(width, dark=dark)
    page.tab_to("prompt")
    page.type("What is 2 + 2?")
    page.tab_to("go")
    page.press("Enter")
    page.until("document.getElementById('explained')")
    assert page.read("document.documentElement.scrollWidth") == width
    far = "one => one.getBoundingClientRect().right > innerWidth + 1"
    outside = f"[...document.querySelectorAll('main *')].filter({far}).map(one => one.outerHTML.slice(0, 120))"
    assert page.read(outside) == []
    for foreground, background in (
        ("--ink", "--paper"),
        ("--quiet", "--paper"),
        ("--link", "--paper"),
        ("--bad", "--bad-paper"),
    ):
        assert contrast(page, foreground, background) >= 4.5, (foreground, background)


def contrast(page: Chromium, *names: str) -> float:
    """Return the contrast of two colours of the page, as WCAG has it."""
    light = []
    for name in names:
        value = page.read(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
        digits = value[1:] if len(value) == 7 else "".join(2 * one for one in value[1:])
        parts = np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_keys_alone_reach_everything_and_show_where_they_are(page: Chromium) -> None:
    reached = []
    for _ in range(12):
        page.press("Tab")
        found = page.read("[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
        if found[0] in reached or not found[0]:
            break
        assert found[1] == "solid", found
        reached.append(found[0])
    assert reached == ["tau", "prompt", "trytau", "go"]
    for field in ("tau", "prompt", "trytau", "key", "trymodel"):
        assert page.read(f"document.getElementById('{field}').labels.length") == 1
    for told in ("live", "change", "tried", "trouble"):
        assert page.read(f"document.getElementById('{told}').matches('[aria-live], [role=status], [role=alert]')")


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


def test_an_upstream_that_fails_is_seen(
    browser: Chromium, provider: UpstreamStub, served: ServerProcess, engine: Engine
) -> None:
    prompt = PROMPTS[0]
    chosen = engine.route(prompt, engine.policy(tau=TAU, exclude=[LEFT_OUT])).model
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


def test_names_that_are_markup_stay_text(browser: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "NAMES", HOSTILE)
    bundle = make_path_bundle(tmp_path, rows=40, models=len(HOSTILE))
    assert set(HOSTILE) == set(bundle.names)
    with ServerProcess(tmp_path / "server", {}, "--bundle", str(tmp_path / "bundles")) as server:
        for prompt in ("what is it", "write code", "prove the story"):
            assert server.post("/v1/route", {"prompt": prompt}).status == 200
        browser.open(f"{server.url}/", NARROW)
        browser.until(LIVE)
        browser.tab_to("prompt")
        browser.type("explain <b>python</b>")
        browser.tab_to("go")
        browser.press("Enter")
        browser.until("document.getElementById('explained')")
        for name in HOSTILE:
            assert name in browser.read("document.getElementById('share').textContent")
            assert name in browser.read("document.getElementById('explained').textContent")
        assert browser.read("[typeof hit, document.images.length, document.scripts.length]") == ["undefined", 0, 1]
        assert browser.read("document.documentElement.scrollWidth") == NARROW
        assert browser.complaints == []


def test_its_headers_let_nothing_run_but_its_own_script(browser: Chromium, served: ServerProcess) -> None:
    reply = served.get("/")
    policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["style-src"])
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert not re.search(rb"(?:src|href)=\"(?!data:,)|url\(|@import|innerHTML|\son\w+=", reply.content)
    browser.open(f"{served.url}/")
    browser.until(LIVE)
    browser.read(
        "(() => { const script = document.createElement('script'); script.textContent = 'ran = 1'; document.body.append(script);"
        " const link = document.createElement('a'); link.setAttribute('onclick', 'ran = 1'); document.body.append(link); link.click(); })()"
    )
    assert browser.read("typeof ran") == "undefined"
    assert browser.read("fetch('http://127.0.0.1:9/').catch(() => 'refused')") == "refused"
    assert any("Content Security Policy" in said for said in browser.complaints)


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
