"""Several workers are one server: their figures add up, one that dies takes none along, and stopping finishes what runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipr_engine.bundle import activate
from tests.support.bundles import make_siblings
from tests.support.http_calls import nobody
from tests.support.server_configs import CHAT, EVERY, KEYS, PATHS, PROMPTS, TEAM_KEY, body_of, gateway_config
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

AUTHORIZATION = {"authorization": f"Bearer {TEAM_KEY}"}


@pytest.fixture
def two(provider: UpstreamStub, tmp_path: Path) -> Iterator[ServerProcess]:
    config = gateway_config(provider.url, nobody())
    with ServerProcess(tmp_path, config, "--workers", "2", environment=KEYS, headers=AUTHORIZATION) as server:
        until(lambda: server.all_ready(2), 20.0, server.printed)
        yield server


def replies(figures: dict[str, float]) -> float:
    """Return how many requests of clients were answered."""
    return sum(value for name, value in figures.items() if name.startswith("ipr_requests_total") and "/v1/" in name)


def ask(server: ServerProcess, count: int) -> None:
    """Ask so often, each on a connection of its own, so that both workers answer."""
    with ThreadPoolExecutor(4) as pool:
        bodies = [body_of(CHAT, PROMPTS[number % 3]) for number in range(count)]
        assert {reply.status for reply in pool.map(lambda body: server.post(PATHS[CHAT], body), bodies)} == {200}


def decisions(figures: dict[str, float]) -> float:
    return sum(value for name, value in figures.items() if name.startswith("ipr_decisions_total"))


def of_those_that_live(figures: dict[str, float]) -> dict[str, float]:
    """Return what is so now, of all workers: one that has ended has no part in it."""
    return {
        name: value for name, value in figures.items() if name.startswith(("ipr_serving_bundle", "ipr_queue_limit"))
    }


def test_figures_add_up_over_workers_and_outlive_them(two: ServerProcess) -> None:
    ask(two, 40)
    until(lambda: {replies(two.metrics()) for _ in range(8)} == {40})  # whichever worker is asked
    until(lambda: {decisions(two.metrics()) for _ in range(8)} == {40})  # engines' counters are shared every second
    of_two = of_those_that_live(two.metrics())
    victim = two.workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in (running := two.workers()) and len(running) == 2, 20.0, two.printed)
    until(lambda: two.all_ready(2), 20.0, two.printed)
    ask(two, 10)
    until(lambda: {replies(two.metrics()) for _ in range(8)} == {50})
    until(lambda: {decisions(two.metrics()) for _ in range(8)} == {50})
    until(lambda: all(two.metrics()["ipr_in_flight"] == 0 for _ in range(8)))
    until(lambda: all(of_those_that_live(two.metrics()) == of_two for _ in range(8)))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stopping_finishes_streams(provider: UpstreamStub, tmp_path: Path, how: signal.Signals) -> None:
    provider.reset()
    provider.fail(EVERY[0], "pace", seconds=0.2)
    config = gateway_config(provider.url, nobody())
    with ServerProcess(tmp_path, config, environment=KEYS, headers=AUTHORIZATION) as server:
        with server.streamed(PATHS[CHAT], body_of(CHAT, model=EVERY[0], stream=True)) as answer:
            first = answer.read1()
            server.process.send_signal(how)
            content = first + answer.read()
        assert content.endswith(b"data: [DONE]\n\n")
        assert server.process.wait(20) == 0, server.printed()
        with pytest.raises(OSError, match=r"refused|reset"):
            server.get("/health")
    provider.reset()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stream_that_outlives_the_wait_ends_with_an_error(
    provider: UpstreamStub, tmp_path: Path, workers: str
) -> None:
    provider.reset()
    provider.fail(EVERY[0], "stall", seconds=90)
    config = gateway_config(provider.url, nobody())
    arguments = ("--workers", workers)
    with ServerProcess(tmp_path, config, *arguments, environment=KEYS, headers=AUTHORIZATION) as server:
        with ThreadPoolExecutor(1) as pool:
            provider.fail(EVERY[1], "hang", seconds=90)
            waiting = pool.submit(server.post, PATHS[CHAT], body_of(CHAT, model=EVERY[1]))
            with server.streamed(PATHS[CHAT], body_of(CHAT, model=EVERY[0], stream=True)) as answer:
                first = answer.read1()
                until(lambda: len(provider.seen()) == 2)
                server.process.send_signal(signal.SIGTERM)
                content = first + answer.read()
            assert b"the server stops" in content
            assert waiting.result().status == 503
        assert server.process.wait(20) == 0, server.printed()
        assert "Traceback" not in server.printed()
    provider.reset()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_counts_begin_with_the_server_whatever_folder_of_metrics_it_inherits(tmp_path: Path, workers: str) -> None:
    inherited = tmp_path / "metrics"
    inherited.mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(inherited), "prometheus_multiproc_dir": str(inherited)}
    for run in ("first", "second"):
        with ServerProcess(tmp_path / run, {}, "--workers", workers, environment=environment) as server:
            for _ in range(3):
                assert server.post("/v1/route", {"prompt": "hi"}).status == 200
            until(lambda: decisions(server.metrics()) == 3)  # workers tell the others once a second what they counted
            assert server.metrics()['ipr_requests_total{path="/v1/route",status="200",tenant="anybody"}'] == 3
            assert server.get("/ipr/overview").body["several_workers"] == (workers == "2")
    assert list(inherited.iterdir()) == []


def test_each_worker_counts_its_swaps_and_the_page_tells_those_of_one(tmp_path: Path) -> None:
    siblings = make_siblings(tmp_path / "bundles", 2)
    root = siblings[0].parent
    config = {"server": {"follow_s": 0.1}, "policy": {"tau": 0.3, "rule": "minmax"}}
    with ServerProcess(tmp_path / "server", config, "--workers", "2", "--bundle", str(root)) as server:
        until(lambda: server.all_ready(2), 20.0, server.printed)
        activate(root, siblings[1].name)
        until(lambda: server.metrics()["ipr_swaps_total"] == 2)
        (root / "CURRENT").write_text("0" * 64 + "\n")
        until(lambda: server.metrics()["ipr_swap_failures_total"] == 2)
        for _ in range(8):  # whichever worker is asked
            bundle = server.get("/ipr/overview").body["bundle"]
            assert (bundle["swaps"], bundle["swap_failures"]) == (1, 1)
