"""What a bundle promises when nothing is wrong: the round trip, equal hashes."""

from __future__ import annotations

import hashlib
import json
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
    encoder_identity,
    write_bundle,
)
from ipr_engine.errors import (
    BundleFormatError,
    BundleHashError,
)
from tests.support.bundles import bundle_parts, make_bundle, make_encoder, make_tensors
from tests.support.folders import files_of


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


def test_the_same_input_gives_the_same_hash_and_bytes_in_another_root(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "a", hidden=5), make_bundle(tmp_path / "b", hidden=5)
    assert first.name == second.name
    assert files_of(first) == files_of(second)


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
