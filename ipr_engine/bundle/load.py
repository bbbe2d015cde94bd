"""Bundle.load: read a bundle folder, verify all of it, and only then hand it out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.errors import (
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundleValueError,
    BundleVersionError,
    EncoderMismatchError,
)

from .fields import Field, fail, is_hex64, parse_json, require_distinct
from .files import FileEntry, as_path, file_entry, read_regular, reading
from .spec import (
    Candidate,
    EncoderSpec,
    FittedOn,
    HeadsSpec,
    Price,
    PriceList,
    RuleConstants,
    SupportSpec,
    encoder_identity,
)
from .tensors import check_table, config_normalize, heads_tensors, support_tensors

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
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
_ENCODER = ("id", "kind", "dim", "max_tokens", "pooling", "normalize", "files")
_HEADS = ("id", "encoder", "outputs", "activation", "weights", "candidates", "rule_constants", "fitted_on")
_SUPPORT = ("encoder", "weights")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Bundle:
    """A verified bundle. hash is the sha256 of its bundle.json, path its folder; extra_files are by relative path.

    prices_sha256: of its price file.
    """

    hash: str
    path: Path
    name: str
    created: str
    candidates: tuple[Candidate, ...]
    encoders: tuple[EncoderSpec, ...]
    heads: tuple[HeadsSpec, ...]
    prices: PriceList
    prices_sha256: str
    support: SupportSpec | None
    calibrations: tuple[Mapping[str, Any], ...]
    extra_files: Mapping[str, Path]
    provenance: Mapping[str, Any]

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

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Candidate names, in order."""
        return tuple(candidate.name for candidate in self.candidates)

    @cached_property
    def tie_rank(self) -> NDArray[np.int32]:
        """(models,) rank of each candidate's name, so that ties do not depend on the position."""
        return np.argsort(np.argsort(np.array(self.names))).astype(np.int32)

    @cached_property
    def quality_heads(self) -> HeadsSpec:
        """The heads a decision is made with: the first that cover every candidate, their rows in candidate order.

        Raises:
            BundleFormatError: no heads cover every candidate.
        """
        for heads in self.heads:
            if set(heads.candidates) == set(self.names):
                return heads.in_order(self.names)
        todo = "add heads for the missing candidates, or leave those out"
        fail(BundleFormatError, f"{self.path / MANIFEST}: heads", "one entry that covers every candidate", "none", todo)

    def encoder(self, id: str) -> EncoderSpec:
        """The encoder of that id."""
        return next(encoder for encoder in self.encoders if encoder.id == id)

    def __repr__(self) -> str:
        return f"<Bundle {self.name!r} {self.hash[:12]}, {len(self.candidates)} candidates, {self.path}>"


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
    return _prices(parse_json(read_regular(file, str(file)), str(file)), candidates)


def listed_files(document: Field, folder: Path) -> list[FileEntry]:
    """Every file a bundle.json lists besides itself, unverified."""
    keys = document.object(_KEYS)
    fields = [keys["prices"], *keys["extra_files"].list()]
    for encoder in keys["encoders"].list():
        fields += encoder.object(_ENCODER)["files"].mapping().values()
    fields += [heads.object(_HEADS)["weights"] for heads in keys["heads"].list()]
    if keys["support"].value is not None:
        fields.append(keys["support"].object(_SUPPORT)["weights"])
    return [file_entry(field, folder) for field in fields]


def _parse(document: Field, folder: Path, digest: str) -> Bundle:
    version = document.mapping().get("schema_version")
    if version is not None and version.integer(at_least=0) != SCHEMA_VERSION:
        todo = "use the release of ipr_engine that wrote it, or write the bundle again"
        fail(BundleVersionError, version.where, f"schema_version {SCHEMA_VERSION}", version.value, todo)
    keys = document.object(_KEYS)

    candidates = _candidates(keys["candidates"])
    names = [candidate.name for candidate in candidates]
    encoders = tuple(_encoder(field, folder) for field in keys["encoders"].list(at_least=1))
    require_distinct([encoder.id for encoder in encoders], keys["encoders"].list())
    dims = {encoder.id: encoder.dim for encoder in encoders}
    heads = tuple(_heads(field, folder, names, dims) for field in keys["heads"].list(at_least=1))
    require_distinct([head.id for head in heads], keys["heads"].list())
    prices = file_entry(keys["prices"], folder)
    if keys["calibrations"].list():
        keys["calibrations"].fail(f"an empty list (schema_version {SCHEMA_VERSION} knows no calibrations)")
    extra = [file_entry(field, folder) for field in keys["extra_files"].list()]
    require_distinct([entry.relative for entry in extra], keys["extra_files"].list())
    keys["provenance"].mapping()
    keys["provenance"].require_finite_tree()
    return Bundle(
        hash=digest,
        path=folder,
        name=keys["name"].text(),
        created=keys["created"].day(),
        candidates=candidates,
        encoders=encoders,
        heads=heads,
        prices=_prices(parse_json(prices.read(), prices.where), names),
        prices_sha256=prices.sha256,
        support=_support(keys["support"], folder, dims),
        calibrations=(),
        extra_files=MappingProxyType({entry.relative: entry.verify() for entry in extra}),
        provenance=MappingProxyType(keys["provenance"].value),
    )


def _candidates(field: Field) -> tuple[Candidate, ...]:
    candidates = tuple(_candidate(item) for item in field.list(at_least=1))
    require_distinct([candidate.name for candidate in candidates], field.list())
    return candidates


def _candidate(field: Field) -> Candidate:
    keys = field.object(("name", "family", "provider", "context_window", "token_ratio", "features", "latency_ms"))
    window, latency = keys["context_window"], keys["latency_ms"]
    return Candidate(
        name=keys["name"].text(),
        family=keys["family"].text(),
        provider=keys["provider"].text(),
        context_window=None if window.value is None else window.integer(at_least=1),
        token_ratio=keys["token_ratio"].number(above=0, at_most=1e6),
        features=keys["features"].names(),
        latency_ms=None if latency.value is None else latency.number(at_least=0),
    )


def _encoder(field: Field, folder: Path) -> EncoderSpec:
    keys = field.object(_ENCODER)
    kind = keys["kind"].one_of(("static",))
    dim = keys["dim"].integer(at_least=1)
    max_tokens = keys["max_tokens"].integer(at_least=1, at_most=2**31)
    pooling = keys["pooling"].one_of(("mean",))
    normalize = keys["normalize"].boolean()
    roles = keys["files"].object(("table", "tokenizer", "config"))
    files = {role: file_entry(entry, folder) for role, entry in roles.items()}
    check_table(files["table"].verify(), files["table"].where, dim=dim)
    if config_normalize(files["config"].read(), files["config"].where) != normalize:
        keys["normalize"].fail(f"what {files['config'].path} says", BundleValueError)
    return EncoderSpec(
        id=keys["id"].id(),
        kind=kind,
        dim=dim,
        max_tokens=max_tokens,
        pooling=pooling,
        normalize=normalize,
        table=files["table"].path,
        tokenizer=files["tokenizer"].verify(),
        config=files["config"].path,
        identity=encoder_identity(
            kind=kind,
            table=files["table"].sha256,
            tokenizer=files["tokenizer"].sha256,
            config=files["config"].sha256,
            pooling=pooling,
            normalize=normalize,
            max_tokens=max_tokens,
        ),
    )


def _known_encoder(field: Field, dims: Mapping[str, int]) -> str:
    if field.text() not in dims:
        field.fail(f"an encoder of this bundle ({', '.join(dims)})", EncoderMismatchError)
    return field.text()


def _heads(field: Field, folder: Path, names: Sequence[str], dims: Mapping[str, int]) -> HeadsSpec:
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
        fitted_on=_fitted_on(keys["fitted_on"]),
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


def _fitted_on(field: Field) -> FittedOn:
    keys = field.object(("source", "prompts", "prompt_ids_sha256"))
    return FittedOn(
        source=keys["source"].text(),
        prompts=keys["prompts"].integer(at_least=0),
        prompt_ids_sha256=keys["prompt_ids_sha256"].sha256(),
    )


def _prices(document: Field, names: Sequence[str]) -> PriceList:
    keys = document.object(("currency", "date", "prices"))
    rows = keys["prices"].object(names)
    return PriceList(
        currency=keys["currency"].one_of(("USD",)),
        date=keys["date"].day(),
        prices=MappingProxyType({name: _price(row) for name, row in rows.items()}),
    )


def _price(field: Field) -> Price:
    keys = field.object(("input_usd_per_1m", "output_usd_per_1m", "fixed_usd", "basis"))
    return Price(
        input_usd_per_1m=keys["input_usd_per_1m"].number(at_least=0),
        output_usd_per_1m=keys["output_usd_per_1m"].number(at_least=0),
        fixed_usd=keys["fixed_usd"].number(at_least=0),
        basis=keys["basis"].text(),
    )


def _support(field: Field, folder: Path, dims: Mapping[str, int]) -> SupportSpec | None:
    if field.value is None:
        return None
    keys = field.object(_SUPPORT)
    encoder = _known_encoder(keys["encoder"], dims)
    weights = file_entry(keys["weights"], folder)
    centroids, distances = support_tensors(weights.read(), weights.where, dim=dims[encoder])
    return SupportSpec(encoder=encoder, centroids=centroids, distances=distances)
