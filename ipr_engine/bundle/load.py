"""Bundle.load: read a bundle folder, verify all of it, and only then hand it out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ipr_engine._files import as_path
from ipr_engine.bundle.calibration import CalibrationMap
from ipr_engine.bundle.calibration_entry import parse_map
from ipr_engine.bundle.candidate_entry import parse_candidates, parse_prices
from ipr_engine.bundle.encoder_entry import encoder_file_fields, parse_encoders
from ipr_engine.bundle.fields import Field, fail, is_hex64, parse_json, require_distinct
from ipr_engine.bundle.file_entry import FileEntry, file_entry, read_regular, reading
from ipr_engine.bundle.path_rows_entry import parse_path_rows, path_rows_file
from ipr_engine.bundle.schema import SCHEMA_VERSIONS
from ipr_engine.bundle.spec import (
    MANIFEST,
    BundleSpec,
    EscalationSpec,
    FittedOn,
    HeadsSpec,
    PriceList,
    RuleConstants,
    SupportSpec,
)
from ipr_engine.bundle.tensors import heads_tensors, support_tensors
from ipr_engine.errors import (
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundleVersionError,
    EncoderMismatchError,
)

CURRENT = "CURRENT"
OUTPUTS = ("quality", "tokens")
ACTIVATIONS = ("relu", "silu", "gelu")
_KEYS = (
    "schema_version",
    "name",
    "created",
    "candidates",
    "encoders",
    "heads",
    "prices",
    "support",
    "calibrations",
    "extra_files",
    "provenance",
)
_HEADS = ("id", "encoder", "outputs", "activation", "weights", "candidates", "rule_constants", "fitted_on")
_SUPPORT = ("encoder", "weights")
_FITTED_ON = ("source", "prompts", "prompt_ids_sha256")
_HASHES, _HASH_KEY = "prompt_hashes", "hash_key"


class Bundle(BundleSpec):
    """A bundle, read from its folder and verified."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read and verify a bundle; what is returned needs no further check.

        Args:
            path: a root (a folder with CURRENT) or one bundle folder. A folder named by 64 hex digits must carry
                its own hash; under any other name it is a copy, and everything inside is still verified.
        Raises:
            InvalidInputError: path is not a path.
            BundleError: the subclass says what is wrong, the message which file and field, and what to do.
        Notes:
            Reads every file once. No array of an encoder's table is kept, that is the encoder's work.
        """
        folder = find_folder(as_path(path, "path"))
        data = read_regular(folder / MANIFEST, str(folder / MANIFEST))
        digest = hashlib.sha256(data).hexdigest()
        if is_hex64(folder.name) and digest != folder.name:
            todo = "restore the folder from its source"
            fail(BundleHashError, str(folder / MANIFEST), f"sha256 {folder.name} (the folder's name)", digest, todo)
        return _parse(parse_json(data, str(folder / MANIFEST)), folder, digest)


def find_folder(path: Path) -> Path:
    """The bundle folder meant by `path`: itself, or the one CURRENT names."""
    with reading(str(path)):
        if not path.is_dir():
            got = "a file" if path.exists() else "nothing there"
            fail(BundleNotFoundError, str(path), "a bundle folder or a root with CURRENT", got, "check the path")
        if (path / MANIFEST).exists():
            return path.absolute()
        if not (path / CURRENT).exists():
            got = "a folder with neither"
            fail(BundleNotFoundError, str(path), f"a folder with {MANIFEST} or {CURRENT}", got, "check the path")
    line = read_regular(path / CURRENT, str(path / CURRENT)).removesuffix(b"\n")
    name = line[:100].decode("ascii", "backslashreplace")
    if len(line) > 64 or not is_hex64(name):
        todo = "write the hash of one of the folders beside it, or activate() one"
        fail(BundleFormatError, str(path / CURRENT), "one line of 64 lower-case hex digits", repr(name), todo)
    folder = path.absolute() / name
    if not (folder / MANIFEST).exists():
        todo = "restore that folder, or activate() another"
        fail(BundleNotFoundError, str(path / CURRENT), f"{name}/{MANIFEST} beside it", "nothing there", todo)
    return folder


def read_prices(path: str | os.PathLike[str], candidates: Sequence[str]) -> PriceList:
    """Read a price file of the bundle's form and check that it prices exactly these candidates."""
    file = as_path(path, "path")
    return parse_prices(parse_json(read_regular(file, str(file)), str(file)), candidates, detailed=True)


def listed_files(document: Field, folder: Path) -> list[FileEntry]:
    """Every file a bundle.json lists besides itself, unverified."""
    keys = document.object(_keys_of(document))
    fields = [keys["prices"], *keys["extra_files"].list()]
    for encoder in keys["encoders"].list():
        fields += encoder_file_fields(encoder)
    for heads in keys["heads"].list():
        parts = heads.object(_HEADS)
        fields.append(parts["weights"])
        fields += [f for key, f in parts["fitted_on"].mapping().items() if key == _HASHES and f.value is not None]
    if keys["support"].value is not None:
        fields.append(keys["support"].object(_SUPPORT)["weights"])
    if "path_rows" in keys and (rows := path_rows_file(keys["path_rows"])) is not None:
        fields.append(rows)
    return [file_entry(field, folder) for field in fields]


def _parse(document: Field, folder: Path, digest: str) -> Bundle:
    version = document.mapping().get("schema_version")
    if version is not None and version.integer(at_least=0) not in SCHEMA_VERSIONS:
        todo = "use the release of ipr_engine that wrote it, or write the bundle again"
        known = " or ".join(map(str, SCHEMA_VERSIONS))
        fail(BundleVersionError, version.where, f"schema_version {known}", version.value, todo)
    keys = document.object(_keys_of(document))
    number = 1 if version is None else int(version.value)

    candidates = parse_candidates(keys["candidates"], number)
    names = [candidate.name for candidate in candidates]
    encoders = parse_encoders(keys["encoders"], folder, number)
    dims = {encoder.id: encoder.dim for encoder in encoders}
    old = number == 1
    heads = tuple(_heads(field, folder, names, dims, number) for field in keys["heads"].list(at_least=1))
    require_distinct([head.id for head in heads], keys["heads"].list())
    prices = file_entry(keys["prices"], folder)
    if old and keys["calibrations"].list():
        keys["calibrations"].fail("an empty list (schema_version 1 knows no calibrations)")
    extra = [file_entry(field, folder) for field in keys["extra_files"].list()]
    require_distinct([entry.relative for entry in extra], keys["extra_files"].list())
    keys["provenance"].mapping()
    keys["provenance"].require_finite_tree()
    escalation = _escalation(keys["escalation"], heads, names) if number >= 3 else None
    return Bundle(
        hash=digest,
        path=folder,
        name=keys["name"].text(),
        created=keys["created"].day(),
        candidates=candidates,
        encoders=encoders,
        heads=heads,
        prices=parse_prices(parse_json(prices.read(), prices.where), names, detailed=number >= 6),
        prices_sha256=prices.sha256,
        support=_support(keys["support"], folder, dims),
        escalation=escalation,
        calibrations=_calibrations(keys["calibrations"], number),
        extra_files=MappingProxyType({entry.relative: entry.verify() for entry in extra}),
        provenance=MappingProxyType(keys["provenance"].value),
        path_rows=parse_path_rows(
            keys["path_rows"], folder, names, _deciding(heads, names, escalation), own=number >= 6
        )
        if number >= 5
        else None,
    )


def _keys_of(document: Field) -> tuple[str, ...]:
    version = document.mapping().get("schema_version")
    number = 1 if version is None else version.value
    known = number if number in SCHEMA_VERSIONS else 1
    return (*_KEYS, *(("escalation",) if known >= 3 else ()), *(("path_rows",) if known >= 5 else ()))


def _deciding(heads: Sequence[HeadsSpec], names: Sequence[str], escalation: EscalationSpec | None) -> list[str]:
    """sha256 of the weights that decide: the first heads that cover every candidate, and the second tier's."""
    first = [entry.sha256 for entry in heads if set(entry.candidates) == set(names)][:1]
    return first + [entry.sha256 for entry in heads if escalation is not None and entry.id == escalation.heads]


def _escalation(field: Field, heads: Sequence[HeadsSpec], names: Sequence[str]) -> EscalationSpec | None:
    if field.value is None:
        return None
    keys = field.object(("heads", "gap"))
    covering = [entry.id for entry in heads if set(entry.candidates) == set(names)]
    if keys["heads"].text() not in covering[1:]:
        keys["heads"].fail("the id of heads that cover every candidate and are not the first such")
    first, second = (next(h for h in heads if h.id == id) for id in (covering[0], keys["heads"].text()))
    if set(first.outputs) != set(second.outputs):
        keys["heads"].fail(f"heads with the outputs of {first.id!r}, {', '.join(first.outputs)}", EncoderMismatchError)
    return EscalationSpec(heads=second.id, gap=keys["gap"].number(at_least=0))


def _calibrations(field: Field, version: int) -> tuple[CalibrationMap, ...]:
    maps = tuple(parse_map(item, tested=version >= 5) for item in field.list())
    require_distinct([", ".join(sorted(made.candidates)) for made in maps], field.list())
    return maps


def _known_encoder(field: Field, dims: Mapping[str, int]) -> str:
    if field.text() not in dims:
        field.fail(f"an encoder of this bundle ({', '.join(dims)})", EncoderMismatchError)
    return field.text()


def _heads(field: Field, folder: Path, names: Sequence[str], dims: Mapping[str, int], version: int) -> HeadsSpec:
    keys = field.object(_HEADS)
    encoder = _known_encoder(keys["encoder"], dims)
    outputs = keys["outputs"].names(at_least=1, known=OUTPUTS)
    if "quality" not in outputs:
        keys["outputs"].fail("'quality' among them")
    candidates = keys["candidates"].names(at_least=1, known=names)
    weights = file_entry(keys["weights"], folder)
    return HeadsSpec(
        id=keys["id"].id(),
        encoder=encoder,
        outputs=outputs,
        activation=keys["activation"].one_of(ACTIVATIONS),
        candidates=candidates,
        rule_constants=_rule_constants(keys["rule_constants"]),
        fitted_on=_fitted_on(keys["fitted_on"], folder, version),
        sha256=weights.sha256,
        tensors=heads_tensors(
            weights.read(), weights.where, models=len(candidates), dim=dims[encoder], outputs=outputs
        ),
    )


def _rule_constants(field: Field) -> RuleConstants | None:
    if field.value is None:
        return None
    keys = field.object(("hi", "lo"))
    hi = keys["hi"].number(at_least=0, at_most=1)
    return RuleConstants(hi=hi, lo=keys["lo"].number(at_least=0, at_most=hi))


def _fitted_on(field: Field, folder: Path, version: int) -> FittedOn:
    keyed = version >= 5 and _HASH_KEY in field.mapping()  # written only where there is a key
    keys = field.object((*_FITTED_ON, *((_HASHES,) if version > 1 else ()), *((_HASH_KEY,) if keyed else ())))
    hashes = None if version == 1 or keys[_HASHES].value is None else file_entry(keys[_HASHES], folder)
    if keyed and hashes is None:
        keys[_HASH_KEY].fail(f"no key where {_HASHES} is null")
    return FittedOn(
        source=keys["source"].text(),
        prompts=keys["prompts"].integer(at_least=0),
        prompt_ids_sha256=keys["prompt_ids_sha256"].sha256(),
        prompt_hashes=None if hashes is None else hashes.verify(),
        hash_key=keys[_HASH_KEY].text() if keyed else None,
    )


def _support(field: Field, folder: Path, dims: Mapping[str, int]) -> SupportSpec | None:
    if field.value is None:
        return None
    keys = field.object(_SUPPORT)
    encoder = _known_encoder(keys["encoder"], dims)
    weights = file_entry(keys["weights"], folder)
    centroids, distances = support_tensors(weights.read(), weights.where, dim=dims[encoder])
    return SupportSpec(encoder=encoder, centroids=centroids, distances=distances)
