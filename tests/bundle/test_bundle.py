"""What a bundle promises when nothing is wrong: the round trip, equal hashes, shared files, an atomic CURRENT."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from ipr_engine.bundle import (
    Bundle,
    BundleParts,
    EncoderSource,
    activate,
    encoder_identity,
    read_prices,
    with_extra_files,
    with_prices,
    write_bundle,
)
from ipr_engine.errors import (
    BundleError,
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundleShapeError,
    BundleValueError,
    EncoderMismatchError,
    InvalidInputError,
)
from tests.support.bundles import bundle_parts, make_bundle, make_candidates, make_encoder, make_prices, make_tensors


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- reading what was written


@pytest.mark.parametrize("models", [1, 2, 11])
@pytest.mark.parametrize(("hidden", "rank"), [(0, 0), (7, 0), (7, 3)])
@pytest.mark.parametrize("tokens", [True, False])
def test_what_is_loaded_is_what_was_written(tmp_path: Path, models: int, hidden: int, rank: int, tokens: bool) -> None:
    shape = {"models": models, "hidden": hidden, "rank": rank, "tokens": tokens, "dim": 17}
    parts = bundle_parts(tmp_path / "sources", **shape)
    bundle = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**parts)))
    assert (bundle.name, bundle.created, dict(bundle.provenance)) == ("test", "2026-11-24", parts["provenance"])
    assert bundle.candidates == tuple(parts["candidates"])
    assert bundle.prices == parts["prices"]
    (head,), (source,) = bundle.heads, parts["heads"]
    assert (head.id, head.encoder, head.outputs, head.activation) == ("static", "static", source.outputs, "relu")
    assert head.candidates == tuple(source.candidates)
    assert (head.rule_constants, head.fitted_on) == (source.rule_constants, source.fitted_on)
    assert sorted(head.tensors) == sorted(source.tensors)
    for name, tensor in head.tensors.items():
        np.testing.assert_array_equal(tensor, source.tensors[name])
    assert bundle.support is not None
    np.testing.assert_array_equal(bundle.support.centroids, parts["support"].centroids)
    np.testing.assert_array_equal(bundle.support.distances, parts["support"].distances)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("rows", [None, 9])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_encoder_is_described_by_its_own_files(
    tmp_path: Path, dtype: str, rows: int | None, normalize: bool
) -> None:
    shape = {"table_dtype": dtype, "table_rows": rows, "table_weights": True, "normalize": normalize}
    folder = make_bundle(tmp_path, **shape, max_tokens=99, dim=24)
    (encoder,) = Bundle.load(folder).encoders
    assert (encoder.kind, encoder.dim, encoder.max_tokens, encoder.pooling) == ("static", 24, 99, "mean")
    assert encoder.normalize is normalize
    for path in encoder.files.values():
        assert path.read_bytes() == (tmp_path / "sources" / "encoder" / path.name).read_bytes()
    document = {
        "kind": "static",
        "files": {role: sha(path) for role, path in encoder.files.items()},
        "pooling": "mean",
        "normalize": normalize,
        "max_tokens": 99,
    }
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert encoder.identity == hashlib.sha256(canonical).hexdigest()


def test_the_identity_changes_with_each_thing_that_shapes_the_embedding() -> None:
    base: dict[str, Any] = {
        "kind": "static",
        "table": "0" * 64,
        "tokenizer": "1" * 64,
        "config": "2" * 64,
        "pooling": "mean",
        "normalize": True,
        "max_tokens": 512,
    }
    others = {
        "kind": "x",
        "table": "3" * 64,
        "tokenizer": "3" * 64,
        "config": "3" * 64,
        "pooling": "cls",
        "normalize": False,
        "max_tokens": 511,
    }
    identities = {
        encoder_identity(**base),
        *(encoder_identity(**(base | {key: other})) for key, other in others.items()),
    }
    assert len(identities) == 1 + len(others)


def test_arrays_are_float32_contiguous_and_read_only(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path, hidden=5, rank=2))
    assert bundle.support is not None
    for array in (*bundle.heads[0].tensors.values(), bundle.support.centroids, bundle.support.distances):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.aligned
        assert not array.flags.writeable


def test_a_bundle_cannot_be_changed(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path))
    with pytest.raises(FrozenInstanceError):
        bundle.name = "other"  # type: ignore[misc]
    for mapping in (bundle.prices.prices, bundle.heads[0].tensors, bundle.provenance, bundle.extra_files):
        with pytest.raises(TypeError):
            mapping["x"] = None  # type: ignore[index]


def test_root_folder_string_and_copy_load_the_same_bundle(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    copy = shutil.copytree(folder, tmp_path / "copy")
    loaded = [Bundle.load(path) for path in (folder, folder.parent, str(folder), copy)]
    assert {bundle.hash for bundle in loaded} == {folder.name} == {sha(folder / "bundle.json")}
    assert repr(loaded[0]).startswith(f"<Bundle 'test' {folder.name[:12]}, 3 candidates, ")
    assert [bundle.path for bundle in loaded] == [folder, folder, folder, copy]


def test_a_relative_path_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bundle(tmp_path)
    monkeypatch.chdir(folder)
    bundle = Bundle.load(".")
    monkeypatch.chdir("/")
    assert bundle.path.is_absolute()
    assert bundle.encoders[0].files["table"].exists()


def test_extra_files_are_carried_and_verified(tmp_path: Path) -> None:
    (tmp_path / "card").write_text("from a file")
    extra = {"MODEL_CARD.md": tmp_path / "card", "notes/why.txt": b"from bytes"}
    bundle = Bundle.load(make_bundle(tmp_path, overrides={"extra_files": extra}))
    assert {name: path.read_bytes() for name, path in bundle.extra_files.items()} == {
        "MODEL_CARD.md": b"from a file",
        "notes/why.txt": b"from bytes",
    }
    bundle.extra_files["MODEL_CARD.md"].write_text("from a liar")
    with pytest.raises(BundleHashError, match=r"MODEL_CARD\.md"):
        Bundle.load(bundle.path)


def test_a_bundle_without_support_and_rule_constants_loads(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources", support=False)
    parts["heads"] = [replace(parts["heads"][0], rule_constants=None)]
    bundle = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**parts)))
    assert bundle.support is None
    assert bundle.heads[0].rule_constants is None


@pytest.mark.parametrize(
    "kept", [("out", "skip"), ("out", "trunk"), ("out", "identity", "skip"), ("out", "up", "down")]
)
def test_each_packed_form_of_a_hidden_head_loads(tmp_path: Path, kept: tuple[str, ...]) -> None:
    parts = bundle_parts(tmp_path / "sources", tokens=False)
    tensors = make_tensors(models=3, dim=16, hidden=5, rank=2, tokens=False)
    parts["heads"] = [replace(parts["heads"][0], tensors={name: tensors[name] for name in (*kept, "bias")})]
    assert sorted(Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**parts))).heads[0].tensors) == sorted(
        (*kept, "bias")
    )


@pytest.mark.parametrize("kept", [("out",), ("out", "identity")])
def test_heads_that_do_not_look_at_the_prompt_are_refused(tmp_path: Path, kept: tuple[str, ...]) -> None:
    parts = bundle_parts(tmp_path / "sources", tokens=False)
    tensors = make_tensors(models=3, dim=16, hidden=5, rank=2, tokens=False)
    parts["heads"] = [replace(parts["heads"][0], tensors={name: tensors[name] for name in (*kept, "bias")})]
    with pytest.raises(BundleFormatError, match="one of skip, trunk or down"):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))


def test_the_generated_tokenizer_splits_any_english(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(make_encoder(tmp_path) / "tokenizer.json"))
    tokens = tokenizer.encode("Explain why 42 quick foxes JUMPED over it; write Python!").tokens
    assert "[UNK]" not in tokens
    assert {"explain", "why", "write", "python", "##ed", ";", "!"} <= set(tokens)


def test_importing_the_module_loads_neither_safetensors_nor_tokenizers() -> None:
    code = "import ipr_engine.bundle, sys; print(sorted({'safetensors', 'tokenizers', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


# -- equal input, equal bytes


def test_the_same_input_gives_the_same_hash_and_bytes_in_another_root(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "a", hidden=5), make_bundle(tmp_path / "b", hidden=5)
    assert first.name == second.name
    assert files(first) == files(second)


def test_the_order_of_tensors_prices_and_extra_files_does_not_matter(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources", hidden=5) | {"extra_files": {"a": b"1", "b": b"2"}}
    head = parts["heads"][0]
    turned = parts | {
        "heads": [replace(head, tensors=dict(reversed(head.tensors.items())))],
        "prices": replace(parts["prices"], prices=dict(reversed(parts["prices"].prices.items()))),
        "extra_files": {"b": b"2", "a": b"1"},
    }
    assert (
        write_bundle(tmp_path / "a", BundleParts(**parts)).name
        == write_bundle(tmp_path / "b", BundleParts(**turned)).name
    )


def test_tensors_in_another_memory_order_give_the_same_hash(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources", hidden=5)
    head = parts["heads"][0]
    turned = {name: np.asfortranarray(tensor) for name, tensor in head.tensors.items()}
    other = parts | {"heads": [replace(head, tensors=turned)]}
    assert (
        write_bundle(tmp_path / "a", BundleParts(**parts)).name
        == write_bundle(tmp_path / "b", BundleParts(**other)).name
    )


def test_whole_numbers_as_int_or_float_give_the_same_hash(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources")
    candidates = [replace(c, token_ratio=1, latency_ms=250) for c in parts["candidates"]]
    floats = [replace(c, token_ratio=1.0, latency_ms=250.0) for c in parts["candidates"]]
    names = {write_bundle(tmp_path / "b", BundleParts(**parts | {"candidates": c})).name for c in (candidates, floats)}
    assert len(names) == 1


def test_json_is_canonical(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    for name in ("bundle.json", "prices.json"):
        text = (folder / name).read_text()
        assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_writing_the_same_bundle_again_changes_nothing(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_bundle(tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(["CURRENT", folder.name])


# -- sharing files


def test_files_that_are_equal_are_hard_linked(tmp_path: Path) -> None:
    first = make_bundle(tmp_path)
    second = make_bundle(tmp_path, price_scale=2.0)
    shared = [name for name in files(first) if (first / name).samefile(second / name)]
    assert sorted(set(files(first)) - set(shared)) == ["bundle.json", "prices.json"]


def test_files_are_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no hard links here")

    first = make_bundle(tmp_path)
    monkeypatch.setattr(os, "link", no_links)
    second = make_bundle(tmp_path, price_scale=2.0)
    assert not any((first / name).samefile(second / name) for name in files(first))
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
    different = {name for name in files(first) if files(first)[name] != files(second)[name]}
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
    before = files(folder.parent)
    with pytest.raises(BundleFormatError, match=r"prices\.gamma/small"):
        with_prices(folder, make_prices(make_candidates(2)))
    assert files(folder.parent) == before


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


# -- CURRENT


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


# -- writing refuses


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "", ".", "bundle.json", "CURRENT", "prices.json", "a\\b", "./x"]
)
def test_an_extra_file_outside_or_on_a_taken_path_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInputError, match="expected a path inside the bundle"):
        make_bundle(tmp_path, overrides={"extra_files": {name: b"x"}})
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("name", ["../x", "a b", "a/b", "x\n"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    parts = bundle_parts(tmp_path / "sources")
    parts["heads"] = [replace(parts["heads"][0], id=name)]
    with pytest.raises((InvalidInputError, BundleFormatError)):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert files(tmp_path / "bundles") == {}


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"encoder": "other"}, EncoderMismatchError, r"heads\[0\]\.encoder"),
        ({"activation": "tanh"}, BundleFormatError, r"heads\[0\]\.activation"),
        ({"candidates": ["alpha/large"]}, BundleShapeError, "skip"),
        ({"tensors": {}}, BundleFormatError, "bias"),
        ({"tensors": {"bias": np.zeros(3)}}, BundleShapeError, "bias.*float32.*float64"),
        ({"tensors": {"bias": [0.0, 0.0, 0.0]}}, BundleShapeError, "bias.*list"),
        ({"tensors": {"bias": np.full(3, np.nan, np.float32)}}, BundleValueError, "bias"),
    ],
)
def test_heads_that_would_not_load_are_not_written(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], named: str
) -> None:
    parts = bundle_parts(tmp_path / "sources")
    old = write_bundle(tmp_path / "bundles", BundleParts(**parts))
    before = files(old.parent)
    parts["heads"] = [replace(parts["heads"][0], **change)]
    with pytest.raises(error, match=named):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert files(old.parent) == before
    assert sorted(path.name for path in old.parent.iterdir()) == sorted(["CURRENT", old.name])


@pytest.mark.parametrize(
    ("overrides", "error", "named"),
    [
        ({"candidates": []}, BundleFormatError, "candidates"),
        ({"created": "today"}, BundleFormatError, "created"),
        ({"provenance": {"path": Path("x")}}, InvalidInputError, r"bundle\.json"),
        ({"provenance": {"loss": float("nan")}}, BundleValueError, r"provenance\.loss"),
        ({"name": "\ud800"}, InvalidInputError, r"bundle\.json"),
        ({"extra_files": {"card": Path("none")}}, BundleNotFoundError, "none"),
    ],
)
def test_arguments_that_would_not_load_are_not_written(
    tmp_path: Path, overrides: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        make_bundle(tmp_path, overrides=overrides)
    root = tmp_path / "bundles"
    assert not root.exists() or list(root.iterdir()) == []


def test_numpy_numbers_are_written_as_numbers(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, overrides={"provenance": {"loss": np.float32(0.5), "steps": np.int64(3)}})
    assert dict(Bundle.load(folder).provenance) == {"loss": 0.5, "steps": 3}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_missing_or_garbled_encoder_source_is_named(tmp_path: Path, name: str) -> None:
    parts = bundle_parts(tmp_path / "sources")
    (tmp_path / "sources" / "encoder" / name).write_text("garbage")
    with pytest.raises(BundleFormatError, match=name):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    (tmp_path / "sources" / "encoder" / name).unlink()
    with pytest.raises(BundleNotFoundError, match=name):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert not (tmp_path / "bundles").exists()


def test_two_encoders_of_one_id_are_refused(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources")
    with pytest.raises(InvalidInputError, match="static"):
        write_bundle(tmp_path / "bundles", BundleParts(**parts | {"encoders": parts["encoders"] * 2}))


def test_two_encoders_with_heads_each_share_one_table_on_disk(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources")
    short = EncoderSource.in_folder(tmp_path / "sources" / "encoder", id="short", max_tokens=32)
    parts["encoders"] = [*parts["encoders"], short]
    parts["heads"] = [*parts["heads"], replace(parts["heads"][0], id="short", encoder="short")]
    bundle = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**parts)))
    assert [head.encoder for head in bundle.heads] == ["static", "short"]
    assert bundle.encoders[0].identity != bundle.encoders[1].identity
    assert bundle.encoders[0].files["table"].samefile(bundle.encoders[1].files["table"])


def test_a_bundle_folder_is_no_root(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    parts = bundle_parts(tmp_path / "sources")
    for root in (folder, folder / "bundle.json"):
        with pytest.raises(InvalidInputError, match="root"):
            write_bundle(root, BundleParts(**parts))


def test_a_damaged_folder_in_the_way_is_named(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    (folder / "prices.json").write_text("{}")
    with pytest.raises(BundleError, match=f"delete {folder}"):
        make_bundle(tmp_path)


def test_hashes_under_a_key_are_of_schema_version_5_and_name_it(tmp_path):
    parts = bundle_parts(tmp_path / "sources", models=3)
    hashes = {name: np.arange(3, dtype=np.uint64) for name in ("texts", "questions")}
    [head] = parts["heads"]
    for key, version in ((None, 2), ("0123456789abcdef", 5)):
        keyed = replace(head, prompt_hashes=hashes, fitted_on=replace(head.fitted_on, hash_key=key))
        folder = write_bundle(tmp_path / "root", BundleParts(**{**parts, "heads": [keyed]}))
        manifest = json.loads((folder / "bundle.json").read_text())
        assert manifest["schema_version"] == version
        assert ("hash_key" in manifest["heads"][0]["fitted_on"]) == (key is not None)
        assert Bundle.load(folder).quality_heads.fitted_on.hash_key == key
    lying = replace(head, fitted_on=replace(head.fitted_on, hash_key="0123456789abcdef"))
    with pytest.raises(BundleFormatError, match="hash_key: expected no key where prompt_hashes is null"):
        write_bundle(tmp_path / "root", BundleParts(**{**parts, "heads": [lying]}))
