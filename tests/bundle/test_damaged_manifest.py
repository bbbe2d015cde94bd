"""Each wrong field of bundle.json and of the prices raises its own class, and the message names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ipr_engine.errors import (
    BundleFormatError,
    BundleShapeError,
    BundleValueError,
    BundleVersionError,
    EncoderMismatchError,
)
from tests.support.damaged_bundles import (
    HEADS,
    PRICES,
    TABLE,
    Edit,
    drop,
    edit_json,
    edit_manifest,
    put,
    raises,
    twice,
)


@pytest.mark.parametrize("version", [0, 10, 999])
def test_an_unknown_schema_version_is_a_version_error_even_with_unknown_keys(copy: Path, version: int) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(schema_version=version, novelty=1))
    raises(BundleVersionError, copy, "bundle.json", "schema_version 1", str(version))


PLACES = [
    (),
    ("candidates", 1),
    ("encoders", 0),
    ("encoders", 0, "files"),
    ("encoders", 0, "files", "table"),
    ("heads", 0),
    ("heads", 0, "weights"),
    ("heads", 0, "rule_constants"),
    ("heads", 0, "fitted_on"),
    ("prices",),
    ("support",),
]


def at(document: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        document = document[key]
    return document


def name_of(place: tuple[str | int, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: name_of(place) or "top")
def test_an_unknown_key_is_a_format_error(copy: Path, place: tuple[str | int, ...]) -> None:
    edit_manifest(copy, put(*place, "novelty", value=1))
    raises(BundleFormatError, copy, "bundle.json", name_of((*place, "novelty")))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: name_of(place) or "top")
def test_each_missing_key_is_a_format_error(copy: Path, place: tuple[str | int, ...]) -> None:
    complete = (copy / "bundle.json").read_bytes()
    for key in list(at(json.loads(complete), place)):
        (copy / "bundle.json").write_bytes(complete)
        edit_manifest(copy, drop(*place, key))
        raises(BundleFormatError, copy, "bundle.json", name_of((*place, key)), "missing")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: name_of(place) or "top")
@pytest.mark.parametrize("wrong", [[1.5], -1.5j], ids=["list", "object"])
def test_each_value_of_the_wrong_type_is_a_format_error(copy: Path, place: tuple[str | int, ...], wrong: Any) -> None:
    complete = (copy / "bundle.json").read_bytes()
    for key in list(at(json.loads(complete), place)):
        (copy / "bundle.json").write_bytes(complete)
        value = {"surprise": "object"} if isinstance(wrong, complex) else wrong
        if key == "provenance" and isinstance(value, dict):
            continue  # the one place where any object is right
        edit_manifest(copy, put(*place, key, value=value))
        raises(BundleFormatError, copy, "bundle.json", name_of((*place, key)))


@pytest.mark.parametrize(
    ("edit", "error", "named"),
    [
        (put("schema_version", value=True), BundleFormatError, "schema_version"),
        (put("schema_version", value="1"), BundleFormatError, "schema_version"),
        (put("name", value=" "), BundleFormatError, "name"),
        (put("created", value="yesterday"), BundleFormatError, "created"),
        (put("created", value="2026-13-01"), BundleFormatError, "created"),
        (put("created", value="20261124"), BundleFormatError, "created"),
        (put("candidates", value=[]), BundleFormatError, "candidates"),
        (twice("candidates"), BundleFormatError, "candidates[3]"),
        (put("candidates", 0, "name", value=3), BundleFormatError, "candidates[0].name"),
        (put("candidates", 0, "name", value="renamed"), BundleFormatError, "heads[0].candidates[0]"),
        (put("candidates", 0, "context_window", value=0), BundleValueError, "candidates[0].context_window"),
        (put("candidates", 0, "context_window", value=True), BundleFormatError, "candidates[0].context_window"),
        (put("candidates", 0, "context_window", value=8.5), BundleFormatError, "candidates[0].context_window"),
        (put("candidates", 1, "token_ratio", value=0), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "token_ratio", value=-1.0), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "token_ratio", value=float("nan")), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "token_ratio", value=float("inf")), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "token_ratio", value=10**400), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "latency_ms", value=-1), BundleValueError, "candidates[1].latency_ms"),
        (put("candidates", 2, "features", value=["tools", "tools"]), BundleFormatError, "candidates[2].features[1]"),
        (put("candidates", 2, "features", value="tools"), BundleFormatError, "candidates[2].features"),
        (put("encoders", value=[]), BundleFormatError, "encoders"),
        (twice("encoders"), BundleFormatError, "encoders[1]"),
        (put("encoders", 0, "id", value="a/b"), BundleFormatError, "encoders[0].id"),
        (put("encoders", 0, "kind", value="psychic"), BundleFormatError, "encoders[0].kind"),
        (put("encoders", 0, "pooling", value="max"), BundleFormatError, "encoders[0].pooling"),
        (put("encoders", 0, "dim", value=0), BundleValueError, "encoders[0].dim"),
        (put("encoders", 0, "dim", value=17), BundleShapeError, TABLE),
        (put("encoders", 0, "max_tokens", value=0), BundleValueError, "encoders[0].max_tokens"),
        (put("encoders", 0, "normalize", value=False), BundleValueError, "encoders[0].normalize"),
        (put("heads", value=[]), BundleFormatError, "heads"),
        (twice("heads"), BundleFormatError, "heads[1]"),
        (put("heads", 0, "encoder", value="other"), EncoderMismatchError, "heads[0].encoder"),
        (put("heads", 0, "outputs", value=["quality", "wit"]), BundleFormatError, "heads[0].outputs[1]"),
        (put("heads", 0, "outputs", value=["quality", "quality"]), BundleFormatError, "heads[0].outputs[1]"),
        (put("heads", 0, "outputs", value=["tokens"]), BundleFormatError, "heads[0].outputs"),
        (put("heads", 0, "outputs", value=["quality"]), BundleFormatError, "len_skip"),
        (put("heads", 0, "activation", value="tanh"), BundleFormatError, "heads[0].activation"),
        (put("heads", 0, "candidates", value=["alpha/large"]), BundleShapeError, HEADS),
        (put("heads", 0, "candidates", 1, value="stranger"), BundleFormatError, "heads[0].candidates[1]"),
        (put("heads", 0, "candidates", 1, value="alpha/large"), BundleFormatError, "heads[0].candidates[1]"),
        (put("heads", 0, "rule_constants", "hi", value=float("nan")), BundleValueError, "rule_constants.hi"),
        (put("heads", 0, "rule_constants", "hi", value=1.5), BundleValueError, "rule_constants.hi"),
        (put("heads", 0, "rule_constants", "lo", value=0.9), BundleValueError, "rule_constants.lo"),
        (put("heads", 0, "fitted_on", "prompts", value=-1), BundleValueError, "fitted_on.prompts"),
        (put("heads", 0, "fitted_on", "prompt_ids_sha256", value="0"), BundleFormatError, "prompt_ids_sha256"),
        (put("prices", "bytes", value=-1), BundleValueError, "prices.bytes"),
        (put("prices", "sha256", value="A" * 64), BundleFormatError, "prices.sha256"),
        (put("support", "encoder", value="other"), EncoderMismatchError, "support.encoder"),
        (put("calibrations", value=[{}]), BundleFormatError, "calibrations"),
        (put("extra_files", value=[{"path": "x"}]), BundleFormatError, "extra_files[0].sha256"),
        (put("provenance", value={"loss": [1.0, float("nan")]}), BundleValueError, "provenance.loss[1]"),
    ],
)
def test_each_wrong_value_in_the_manifest_names_its_field(
    copy: Path, edit: Edit, error: type[Exception], named: str
) -> None:
    edit_manifest(copy, edit)
    raises(error, copy, named)


@pytest.mark.parametrize(
    ("edit", "error", "named"),
    [
        (drop("prices", "beta/mid"), BundleFormatError, "prices.beta/mid"),
        (put("prices", "stranger", value={}), BundleFormatError, "prices.stranger"),
        (put("currency", value="EUR"), BundleFormatError, "currency"),
        (put("date", value="today"), BundleFormatError, "date"),
        (put("novelty", value=1), BundleFormatError, "novelty"),
        (drop("prices", "beta/mid", "basis"), BundleFormatError, "prices.beta/mid.basis"),
        (put("prices", "beta/mid", "basis", value=""), BundleFormatError, "prices.beta/mid.basis"),
        *(
            (put("prices", "beta/mid", key, value=value), error, f"prices.beta/mid.{key}")
            for key in ("input_usd_per_1m", "output_usd_per_1m", "fixed_usd")
            for value, error in [
                (-1e-9, BundleValueError),
                (float("nan"), BundleValueError),
                (float("inf"), BundleValueError),
                ("1", BundleFormatError),
                (True, BundleFormatError),
                (None, BundleFormatError),
            ]
        ),
    ],
)
def test_each_wrong_price_names_its_field(copy: Path, edit: Edit, error: type[Exception], named: str) -> None:
    edit_json(copy, PRICES, edit)
    raises(error, copy, PRICES, named)
