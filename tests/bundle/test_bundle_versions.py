"""Bundles that differ in a part share the rest on disk, and CURRENT changes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipr_engine.bundle import (
    Bundle,
    BundleParts,
    activate,
    read_prices,
    with_extra_files,
    with_prices,
    write_bundle,
)
from ipr_engine.errors import (
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    InvalidInputError,
)
from tests.support.bundles import bundle_parts, make_bundle, make_candidates, make_prices
from tests.support.folders import files_of


def test_files_that_are_equal_are_hard_linked(tmp_path: Path) -> None:
    first = make_bundle(tmp_path)
    second = make_bundle(tmp_path, price_scale=2.0)
    shared = [name for name in files_of(first) if (first / name).samefile(second / name)]
    assert sorted(set(files_of(first)) - set(shared)) == ["bundle.json", "prices.json"]


def test_files_are_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no hard links here")

    first = make_bundle(tmp_path)
    monkeypatch.setattr(os, "link", no_links)
    second = make_bundle(tmp_path, price_scale=2.0)
    assert not any((first / name).samefile(second / name) for name in files_of(first))
    assert Bundle.load(second).hash == second.name


def test_a_damaged_neighbour_shares_nothing(tmp_path: Path) -> None:
    first = make_bundle(tmp_path)
    table = first / "encoders/static/model.safetensors"
    table.write_bytes(bytes(table.stat().st_size))
    second = make_bundle(tmp_path, price_scale=2.0)
    assert Bundle.load(second).hash == second.name
    assert not table.samefile(second / "encoders/static/model.safetensors")


def test_new_prices_make_a_bundle_that_differs_in_prices_alone(tmp_path: Path) -> None:
    first = make_bundle(tmp_path, hidden=4)
    prices = make_prices(make_candidates(3), scale=3.0)
    second = with_prices(first.parent, prices)
    old, new = Bundle.load(first), Bundle.load(first.parent)
    assert (new.path, new.prices) == (second, prices)
    assert (new.candidates, new.encoders[0].identity) == (old.candidates, old.encoders[0].identity)
    different = {name for name in files_of(first) if files_of(first)[name] != files_of(second)[name]}
    assert different == {"bundle.json", "prices.json"}
    assert second == make_bundle(tmp_path, hidden=4, price_scale=3.0)


def test_new_prices_can_go_to_another_root_and_wait_to_be_activated(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path))
    prices = make_prices(make_candidates(3), scale=3.0)
    folder = with_prices(bundle, prices, root=tmp_path / "other", created="2026-11-25", activate=False)
    assert Bundle.load(folder).created == "2026-11-25"
    assert [path.name for path in (tmp_path / "other").iterdir()] == [folder.name]


def test_prices_that_miss_a_candidate_leave_everything_as_it_was(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    before = files_of(folder.parent)
    with pytest.raises(BundleFormatError, match=r"prices\.gamma/small"):
        with_prices(folder, make_prices(make_candidates(2)))
    assert files_of(folder.parent) == before


def test_extra_files_make_a_bundle_that_differs_in_them_alone(tmp_path: Path) -> None:
    first = make_bundle(tmp_path, overrides={"extra_files": {"kept.md": b"kept", "card.md": b"old"}})
    second = with_extra_files(first, {"card.md": b"new", "a.md": b"added"}, provenance={"who": "a test"})
    old, new = Bundle.load(first), Bundle.load(first.parent)
    assert new.path == second
    assert {name: path.read_bytes() for name, path in new.extra_files.items()} == {
        "a.md": b"added",
        "card.md": b"new",
        "kept.md": b"kept",
    }
    assert (new.candidates, new.prices, dict(new.provenance)) == (old.candidates, old.prices, {"who": "a test"})
    assert (second / "encoders/static/model.safetensors").samefile(first / "encoders/static/model.safetensors")
    whole = {"extra_files": {"a.md": b"added", "card.md": b"new", "kept.md": b"kept"}, "provenance": {"who": "a test"}}
    assert second == make_bundle(tmp_path, overrides=whole)


def test_an_extra_file_may_not_take_the_place_of_weights(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    with pytest.raises(InvalidInputError, match="not yet taken"):
        with_extra_files(folder, {"prices.json": b"{}"})


def test_a_price_file_can_be_read_alone(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    names = [candidate.name for candidate in make_candidates(3)]
    assert read_prices(folder / "prices.json", names) == Bundle.load(folder).prices
    with pytest.raises(BundleFormatError, match=r"prices\.json: prices\.stranger: .*missing"):
        read_prices(folder / "prices.json", [*names, "stranger"])


def test_a_new_bundle_is_live_unless_told_otherwise_and_the_old_can_return(tmp_path: Path) -> None:
    first = make_bundle(tmp_path)
    second = make_bundle(tmp_path, seed=1, activate=False)
    root = first.parent
    assert Bundle.load(root).path == first
    activate(root, second.name)
    assert Bundle.load(root).path == second
    assert (root / "CURRENT").read_text() == second.name + "\n"


def test_activate_refuses_what_does_not_load_and_current_stands(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, seed=1, activate=False)
    (second / "prices.json").unlink()  # it is a hard link to the first one's
    (second / "prices.json").write_text("{}")
    with pytest.raises(BundleHashError, match=r"prices\.json"):
        activate(first.parent, second.name)
    with pytest.raises(BundleNotFoundError, match="0000"):
        activate(first.parent, "0" * 64)
    with pytest.raises(InvalidInputError, match="hash"):
        activate(first.parent, "latest")
    assert Bundle.load(first.parent).path == first


READER = """
import collections, pathlib, sys
from ipr_engine.bundle import Bundle
root, stop = map(pathlib.Path, sys.argv[1:])
loads = collections.Counter()
print("ready", flush=True)
while not stop.exists():
    loads[Bundle.load(root).hash] += 1
print(sum(loads.values()), *loads)
"""


@pytest.mark.parametrize("rewrites", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_readers_never_see_a_broken_state_during_rewrites(tmp_path: Path, rewrites: int) -> None:
    parts = bundle_parts(tmp_path / "sources")
    prices = [make_prices(parts["candidates"], scale=1.0 + i) for i in range(5)]
    root = write_bundle(tmp_path / "bundles", BundleParts(**parts | {"prices": prices[0]})).parent
    command = [sys.executable, "-c", READER, str(root), str(tmp_path / "stop")]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        names = {write_bundle(root, BundleParts(**parts | {"prices": prices[i % 5]})).name for i in range(rewrites)}
    finally:
        (tmp_path / "stop").touch()
        results = [reader.communicate(timeout=60) for reader in readers]
    for (out, err), reader in zip(results, readers, strict=True):
        assert (reader.returncode, err) == (0, "")
        loads, *seen = out.split()
        assert int(loads) > rewrites // 10
        assert len(seen) > 1
        assert set(seen) <= names
