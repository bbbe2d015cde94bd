"""examples/fastapi_app.py, run by uvicorn as its docstring says."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import skips
from tests.support.loopback import ask, post
from tests.support.places import ROOT

missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=skips.FASTAPI)
BODY = {"model": "auto", "messages": [{"role": "user", "content": "What is 17 * 23?"}], "max_tokens": 100}


@pytest.fixture(scope="module")
def port(tmp_path_factory, bundle_folder):
    log = tmp_path_factory.mktemp("uvicorn") / "log"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT / "examples"), "--port", "0", "fastapi_app:app"]
    with log.open("wb") as to:
        env = {**os.environ, "PYTHONPATH": paths, "IPR_BUNDLE": str(bundle_folder)}
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=to, env=env)
    try:
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert server.poll() is None, log.read_text()
        yield int(found[1])
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    assert "Application shutdown complete" in log.read_text()  # the engine was closed with it


def test_it_answers_what_the_engine_decides(port, engine):
    for tau in (0, 0.2, 1):
        decision = engine.route(BODY, tau=tau)
        expected = {
            "model": decision.model,
            "ranked": list(decision.ranked),
            "quality": decision.quality,
            "cost_usd": decision.cost_usd,
            "cause": decision.cause,
            "bundle": engine.bundle.hash,
        }
        assert post(port, f"/choose?tau={tau}", BODY) == (200, expected)
    assert post(port, "/choose", BODY) == post(port, "/choose?tau=0.2", BODY)


def test_a_wrong_tau_is_refused(port):
    for tau in ("7", "-0.1", "nan", "much", ""):
        status, answer = post(port, f"/choose?tau={tau}", BODY)
        assert (status, answer["detail"][0]["loc"]) == (422, ["query", "tau"])


def test_a_wrong_request_is_refused_by_name_and_without_its_text(port):
    wrong = {"messages": [{"role": "user", "content": [{"type": "secret", "secret": "words"}]}]}
    status, answer = post(port, "/choose", wrong)
    assert (status, answer["error"]["type"]) == (400, "InvalidInputError")
    assert "messages" in answer["error"]["message"]
    assert "words" not in answer["error"]["message"]
    assert post(port, "/choose", {})[0] == 400
    assert post(port, "/choose", b"{")[0] == post(port, "/choose", ["why"])[0] == 422


def test_every_request_is_in_the_metrics(port):
    def decided():
        status, text = ask(port, "GET", "/metrics")
        assert status == 200
        return sum(float(value) for value in re.findall(r"^ipr_decisions_total\{.*\} (\S+)$", text, re.MULTILINE))

    before = decided()
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: post(port, "/choose", {"messages": f"What is {n} * 23?"})[0], range(40)))
    assert codes == [200] * 40
    assert decided() == before + 40
