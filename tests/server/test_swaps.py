"""A bundle is put in its place while requests run; decisions are recorded, and another bundle decides beside."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import activate
from ipr_engine.cli import main
from tests.support.bundles import NAMES, make_bundle, make_siblings
from tests.support.server_configs import CHAT, PATHS, body_of
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

TAU = 0.3
FOLLOW_S = 0.05


@pytest.fixture(scope="module")
def siblings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of one root, CURRENT at the first."""
    return make_siblings(tmp_path_factory.mktemp("swapped"), 2)


@pytest.fixture(scope="module")
def records(siblings: list[Path]) -> Path:
    return siblings[0].parent.parent / "records.jsonl"


@pytest.fixture(scope="module")
def followed(provider: UpstreamStub, siblings: list[Path], records: Path) -> Iterator[ServerProcess]:
    """A gateway that follows the root, records, and has the second bundle decide beside."""
    config = {
        "endpoints": {"stub": {"base_url": f"{provider.url}/v1", "formats": [CHAT]}},
        "upstreams": dict.fromkeys(NAMES, "stub"),
        "policy": {"tau": TAU, "rule": "minmax"},
        "records": {"path": str(records), "keep_prompts": False, "min_words": 0},
        "shadow": {"bundle": str(siblings[1])},
        "server": {"follow_s": FOLLOW_S},
    }
    root = siblings[0].parent
    with ServerProcess(root.parent / "server", config, "--bundle", str(root)) as server:
        yield server


def prompts(count: int) -> list[str]:
    words = ("what is", "how to prove", "write code of", "explain the story in", "why python")
    return [f"{words[number % 5]} {number} and {number * number}" for number in range(count)]


def test_the_shadow_counts_what_it_would_have_chosen(followed: ServerProcess, siblings: list[Path]) -> None:
    before = followed.metrics()
    asked = prompts(24)
    for prompt in asked:
        assert followed.post("/v1/route", {"prompt": prompt}).status == 200
    first, second = (Engine.load(folder) for folder in siblings)
    chosen, beside = ([engine.route(one, tau=TAU, rule="minmax") for one in asked] for engine in (first, second))
    other = [(mine, its) for mine, its in zip(chosen, beside, strict=True) if mine.model != its.model]
    assert 0 < len(other) < len(asked)
    count = 'ipr_shadow_total{choice="other"}'
    until(lambda: followed.counted(before).get(count) == len(other))
    counted = followed.counted(before)
    assert counted['ipr_shadow_total{choice="same"}'] == len(asked) - len(other)
    names = list(second.bundle.names)
    cost = sum(its.cost_usd - its.usd_of(names.index(mine.model)) for mine, its in other)
    quality = sum(its.quality - float(its.qualities[names.index(mine.model)]) for mine, its in other)
    assert counted["ipr_shadow_cost_usd"] == pytest.approx(cost)
    assert counted["ipr_shadow_quality"] == pytest.approx(quality)


def test_bundles_are_swapped_while_requests_run(
    followed: ServerProcess, provider: UpstreamStub, siblings: list[Path]
) -> None:
    root = siblings[0].parent
    before = followed.metrics()
    ended = threading.Event()
    seen: list[tuple[int, str]] = []

    def ask(number: int) -> None:
        for prompt in itertools.cycle(prompts(10)):
            if ended.is_set():
                return
            stream = number % 2 == 0
            reply = followed.post(PATHS[CHAT], body_of(CHAT, prompt, stream=stream))
            seen.append((reply.status, reply.told["bundle"]))

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, number) for number in range(3)]
        try:
            for folder in (siblings[1], siblings[0], siblings[1], siblings[0]):
                activate(root, folder.name)
                until(lambda folder=folder: followed.get("/ready").body["bundle"] == folder.name)
                asked = len(seen)
                until(lambda asked=asked: len(seen) > asked + 6)
        finally:
            ended.set()
        for one in asking:
            one.result()
    assert {status for status, _ in seen} == {200}
    assert {bundle for _, bundle in seen} == {folder.name[:16] for folder in siblings}
    counted = followed.counted(before)
    assert counted["ipr_swaps_total"] == 4
    assert sum(value for name, value in counted.items() if name.startswith("ipr_served_total")) == len(seen)


def test_a_damaged_current_changes_nothing_and_is_counted(followed: ServerProcess, siblings: list[Path]) -> None:
    current = siblings[0].parent / "CURRENT"
    kept, serving = current.read_bytes(), followed.get("/ready").body["bundle"]
    before = followed.metrics()
    try:
        current.write_text("0" * 64 + "\n")
        until(lambda: followed.counted(before).get("ipr_swap_failures_total"))
        assert followed.get("/ready").body == {**followed.get("/ready").body, "ready": True, "bundle": serving}
        assert followed.get("/ready").body["swap"].startswith("CURRENT is not served: Bundle")
        assert followed.post(PATHS[CHAT], body_of(CHAT)).status == 200
    finally:
        current.write_bytes(kept)
    until(lambda: "swap" not in followed.get("/ready").body)


def test_a_bundle_on_another_encoder_is_followed(followed: ServerProcess, siblings: list[Path], tmp_path: Path) -> None:
    root = siblings[0].parent
    other = make_bundle(tmp_path, models=5, dim=8)
    there = shutil.copytree(other, root / other.name)
    try:
        activate(root, other.name)
        until(lambda: followed.get("/ready").body["bundle"] == other.name)
        assert followed.post(PATHS[CHAT], body_of(CHAT)).told["bundle"] == other.name[:16]
    finally:
        activate(root, siblings[0].name)
        until(lambda: followed.get("/ready").body["bundle"] == siblings[0].name)
        shutil.rmtree(there)


def test_records_replay(
    followed: ServerProcess, siblings: list[Path], records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(records.read_text().splitlines())
    replies = [followed.post(PATHS[CHAT], body_of(CHAT, prompt), {"x-ipr-tau": "0.6"}) for prompt in prompts(6)]
    written = records.read_text().splitlines()
    ids = [reply.told["decision-id"] for reply in replies]
    assert len(written) == before + len(ids)
    assert all(id in line for id, line in zip(ids, written[before:], strict=True))
    for folder in siblings:  # figures of another bundle's heads are not in a record
        lines = [line for line in written if folder.name in line]
        if folder is not siblings[0] and not lines:
            continue  # it has not served yet
        own = records.with_name(f"{folder.name}.jsonl")
        own.write_text("".join(f"{line}\n" for line in lines))
        assert main(["replay", str(own), "--bundle", str(folder)]) == 0
        assert f"{len(lines)} records: {len(lines)} equal, 0 different, 0 not replayed" in capsys.readouterr().out
