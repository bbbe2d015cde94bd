"""The file of records is renamed or removed while two workers write it: every answer stays on record, or is a 503."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import skips
from tests.support.server_process import ServerProcess, until

pytest.importorskip("uvicorn", reason=skips.SERVE)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "records").mkdir()
    return tmp_path / "records" / "decisions.jsonl"


@pytest.fixture
def two(tmp_path: Path, log: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, {"records": {"path": str(log)}}, "--workers", "2") as server:
        until(lambda: server.all_ready(2), 20.0, server.printed)
        yield server


def ask(server: ServerProcess, count: int) -> list[str]:
    """Return the ids of decisions, each asked for on a connection of its own, so that both workers answer."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: server.post("/v1/route", {"prompt": f"What is {number}?"}), range(count)))
    assert {reply.status for reply in found} == {200}
    return [reply.body["id"] for reply in found]


def ids(*files: Path) -> list[str]:
    """Return the ids that files hold, of whole lines alone."""
    lines = b"".join(file.read_bytes() for file in files).splitlines()
    return sorted(json.loads(line)["id"] for line in lines if line)


def test_what_is_decided_after_a_rename_is_in_the_new_file(two: ServerProcess, log: Path) -> None:
    before = ask(two, 20)
    kept = log.rename(log.with_suffix(".1"))
    after = ask(two, 20)
    assert ids(kept) == sorted(before)
    assert ids(log) == sorted(after)


def test_no_record_is_lost_or_doubled_while_the_file_is_renamed(two: ServerProcess, log: Path) -> None:
    kept = []
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, two, 400)
        while not asking.done():
            if log.exists():
                kept.append(log.rename(log.with_suffix(f".{len(kept)}")))
        decided = asking.result()
    assert len(kept) > 2
    assert ids(*kept, *([log] if log.exists() else [])) == sorted(decided)


def test_what_is_decided_after_a_removal_is_in_a_new_file(two: ServerProcess, log: Path) -> None:
    ask(two, 20)
    log.unlink()
    assert sorted(ask(two, 20)) == ids(log)


def test_where_no_file_can_be_made_requests_are_refused_until_one_can(two: ServerProcess, log: Path) -> None:
    ask(two, 20)
    shutil.rmtree(log.parent)
    refused = [two.post("/v1/route", {"prompt": "What is 2+2?"}) for _ in range(8)]
    assert {reply.status for reply in refused} == {503}
    assert "could not be recorded" in refused[0].body["error"]["message"]
    until(lambda: f"cannot append to {log}: No such file or directory" in two.printed())  # a thread writes it
    log.parent.mkdir()
    assert sorted(ask(two, 20)) == ids(log)


def test_a_relative_path_is_one_from_the_folder_of_the_config(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {"records": {"path": "here.jsonl"}}) as server:  # it runs in another folder
        assert ask(server, 1) == ids(tmp_path / "here.jsonl")
