"""A bundle that does not suit the config, or that cannot be served at all, is told; a config may name candidates of the shadow's bundle."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipr_engine.bundle import activate
from ipr_engine.errors import InvalidInputError
from tests.support import skips
from tests.support.bundles import NAMES, make_bundle, make_candidates, make_siblings
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT
from tests.support.server_process import ServerProcess, until

pytest.importorskip("uvicorn", reason=skips.SERVE)
SEES = {"rule": "minmax", "tau": 0.3, "requires": "vision"}
FOLLOWED = {"policy": SEES, "server": {"follow_s": 0.02}}
ASKED = {"prompt": "why python"}


def blind(folder: Path) -> Path:
    """Write a bundle beside `make_bundle`'s of five candidates, where none of them sees images; CURRENT stays."""
    candidates = [replace(candidate, features=()) for candidate in make_candidates(5)]
    return make_bundle(folder, models=5, overrides={"candidates": candidates}, activate=False)


def test_a_bundle_that_the_config_does_not_suit_is_told_until_another_serves(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path, models=5), blind(tmp_path)
    with LocalServer(first.parent, FOLLOWED) as server:
        before = server.metrics()
        activate(first.parent, second.name)
        server.until(lambda: server.get("/ready").status == 503)
        ready = server.get("/ready").body
        assert (ready["ready"], ready["bundle"]) == (False, second.name)
        assert ready["problem"].startswith("policy.requires: unknown 'vision'")
        refused = server.post("/v1/route", ASKED)
        assert refused.status == 503
        assert "does not suit the bundle" in refused.body["error"]["message"]
        assert server.counted(before)["ipr_swap_failures_total"] == 1
        activate(first.parent, first.name)
        server.until(lambda: server.get("/ready").status == 200)
        assert server.get("/ready").body == {"ready": True, "bundle": first.name}
        assert server.post("/v1/route", ASKED).body["bundle"] == first.name
        assert server.counted(before)["ipr_swap_failures_total"] == 1


def test_a_bundle_that_the_config_does_not_suit_is_not_begun_with(tmp_path: Path) -> None:
    make_bundle(tmp_path, models=5)
    second = blind(tmp_path)
    with pytest.raises(InvalidInputError, match="vision"):
        LocalServer(second, FOLLOWED)


def upstreams(*names: str, **more: Any) -> dict[str, Any]:
    endpoints = {"any": {"base_url": "http://127.0.0.1:9/v1", "formats": [CHAT]}}
    return {"policy": {"rule": "minmax"}, "endpoints": endpoints, "upstreams": dict.fromkeys(names, "any"), **more}


def test_an_upstream_of_the_shadows_bundle_alone_is_accepted(tmp_path: Path) -> None:
    served, beside = make_bundle(tmp_path / "one", models=2), make_bundle(tmp_path / "two", models=3)
    config = upstreams(*NAMES[:3], shadow={"bundle": str(beside)})
    with LocalServer(served, config) as server:
        assert set(server.get("/ready").body["upstreams"]) == set(NAMES[:3])
        assert [one["id"] for one in server.get("/v1/models").body["data"]] == ["auto", "ipr-judge", *NAMES[:2]]
        named = server.post("/v1/chat/completions", {"model": NAMES[2], "messages": [{"role": "user", "content": "?"}]})
        assert (named.status, "does not have it" in named.body["error"]["message"]) == (404, True)
    with pytest.raises(InvalidInputError, match=f"upstreams.{NAMES[3]}: .*known: .*{NAMES[2]}"):
        LocalServer(served, upstreams(*NAMES[:4], shadow={"bundle": str(beside)}))
    with pytest.raises(InvalidInputError, match=f"upstreams.{NAMES[2]}: the bundle has no such"):
        LocalServer(served, upstreams(*NAMES[:3]))
    with pytest.raises(InvalidInputError, match=r"^upstreams: nobody is left who could answer"):
        LocalServer(served, upstreams(NAMES[2], shadow={"bundle": str(beside)}))


def serving(server: ServerProcess) -> set[str | int]:
    """Return the bundles that decide, of requests on connections of their own; the status where none does."""
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: server.post("/v1/route", ASKED), range(12)))
    return {reply.body["bundle"] if reply.status == 200 else reply.status for reply in replies}


def killed(server: ServerProcess) -> None:
    """Kill one worker of two; another one begins in its place."""
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in (running := server.workers()) and len(running) == 2, 20.0, server.printed)


@pytest.mark.parametrize("how", ["gone", pytest.param("damaged", marks=pytest.mark.slow)])
def test_a_worker_that_cannot_begin_with_current_takes_the_bundle_of_before(tmp_path: Path, how: str) -> None:
    first = make_bundle(tmp_path, models=5)
    root, arguments = first.parent, ("--bundle", str(first.parent), "--workers", "2")
    with ServerProcess(tmp_path / "server", {"policy": SEES, "server": {"follow_s": 0.1}}, *arguments) as server:
        until(lambda: server.all_ready(2), 20.0, server.printed)
        current = 64 * "0"
        if how == "damaged":
            other = make_siblings(tmp_path / "siblings", 2)[1]
            other.rename(root / other.name)
            (root / other.name / "prices.json").write_text("{}")
            current = other.name
        (root / "CURRENT").write_text(f"{current}\n")
        killed(server)
        until(lambda: "the bundle of before serves" in server.printed(), 20.0, server.printed)
        until(lambda: server.all_ready(2) and serving(server) == {first.name}, 20.0, server.printed)
        assert server.printed().count("the bundle of before serves") == 1  # it began once
        second = make_bundle(tmp_path, models=5, price_scale=2.0)  # and follows CURRENT, as the others
        until(lambda: serving(server) == {second.name}, 20.0, server.printed)


def test_a_worker_begins_where_current_does_not_suit_the_config(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path, models=5), blind(tmp_path)
    root, arguments = first.parent, ("--bundle", str(first.parent), "--workers", "2")
    with ServerProcess(tmp_path / "server", {"policy": SEES, "server": {"follow_s": 0.1}}, *arguments) as server:
        until(lambda: server.all_ready(2), 20.0, server.printed)
        activate(root, second.name)
        until(lambda: server.all_ready(2, 503), 20.0, server.printed)
        killed(server)
        until(lambda: "the bundle of before serves" in server.printed(), 20.0, server.printed)
        workers = server.workers()
        until(lambda: server.all_ready(2, 503), 20.0, server.printed)
        activate(root, first.name)
        until(lambda: server.all_ready(2) and serving(server) == {first.name}, 20.0, server.printed)
        assert server.workers() == workers
