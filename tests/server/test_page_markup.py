"""What comes from outside stays text on the page, and nothing runs there but its own script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import bundles
from tests.support.chromium import Chromium
from tests.support.page_readings import LIVE, NARROW
from tests.support.path_rows import make_path_bundle
from tests.support.server_process import ServerProcess

HOSTILE = (
    "<img src=x onerror=hit=1>",
    "</script><script>hit=1</script>",
    '"><svg onload=hit=1>',
    "${hit=1}{{hit=1}}",
    "'; hit=1 //",
)


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
