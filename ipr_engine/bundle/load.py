"""`Bundle.load`: a bundle folder is read and all of it verified before any of it is handed out.

What reads the entries of bundle.json is imported by the functions that do: `import ipr_engine` reads no bundle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipr_engine._files import as_path, sha256_hex
from ipr_engine._read_only import read_only
from ipr_engine.bundle.bundle_files import FileEntry, file_entry, read_regular, reading
from ipr_engine.bundle.fields import Field, fail, is_hex64, parse_json, require_distinct
from ipr_engine.bundle.spec import MANIFEST, BundleSpec, PriceList
from ipr_engine.errors import (
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundleVersionError,
)

CURRENT = "CURRENT"
# 2: calibrations, prompt hashes; 3: other encoders, escalation; 4: max_output_tokens; 5: path rows, tested taus, keyed
# hashes; 6: prices that say more than those of tokens and requests, candidates' tokenizers, path rows' tokens_in;
# 7: candidates' performance; 8: surface features, heads with a forest; 9: tasks, head views, who answers unsupported prompts.
SCHEMA_VERSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 9)
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

# The root of the embedded bundles. Links are followed: in a strict editable installation every file is one, out of the folder.
DEFAULT_BUNDLE = Path(__file__).resolve().parent.parent / "default_bundle"
# Embedded bundle by name -> the file of that root that holds its hash, in CURRENT's form.
EMBEDDED: Mapping[str, str] = read_only({"default": CURRENT, "default-2026": "default-2026"})


@dataclass(frozen=True, eq=False, repr=False, init=False)  # made as a BundleSpec is
class Bundle(BundleSpec):
    """A `Bundle` was read from its folder and verified.

    Nothing of it changes: a copy is the bundle itself. Another process gets a `BundleDescription`; it loads a bundle of its own.
    """

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read and verify a bundle; what is returned needs no further check.

        Args:
            path: a root (a folder with CURRENT) or one bundle folder. A folder named by 64 hex digits must carry
                its own hash; under any other name it is a copy, and everything inside is still verified. Or, where
                nothing is at that path, the name of an embedded bundle (`EMBEDDED`).
        Raises:
            InvalidInputError: path is not a path.
            BundleError: the subclass says what is wrong, the message which file and field, and what to do.
        Notes:
            Reads every file once. No array of an encoder's table is kept, that is the encoder's work.
        """
        folder = find_folder(as_path(path, "path"))
        data = read_regular(folder / MANIFEST, str(folder / MANIFEST))
        digest = sha256_hex(data)
        # A folder under any other name is a copy that somebody renamed; what it lists is verified all the same.
        if is_hex64(folder.name) and digest != folder.name:
            todo = "restore the folder from its source"
            fail(BundleHashError, str(folder / MANIFEST), f"sha256 {folder.name} (the folder's name)", digest, todo)
        return _parse(parse_json(data, str(folder / MANIFEST)), folder, digest)

    def __copy__(self) -> Bundle:
        return self

    def __deepcopy__(self, memo: object) -> Bundle:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        from ipr_engine.bundle.description import described, description_of  # most processes keep their decisions

        return described, (description_of(self),)


def find_folder(path: Path) -> Path:
    """Return the bundle folder meant by `path`: itself, the one CURRENT names, or the embedded one of that name."""
    # A folder that must not be read says so in a BundleError too.
    hides = "check the path: it hides the embedded bundle of that name; move or rename what is there to load that one"
    with reading(str(path)):
        if not path.is_dir():
            there = path.exists()
            if not there and str(path) in EMBEDDED:
                return _named_by(DEFAULT_BUNDLE / EMBEDDED[str(path)])
            todo = f"check the path, or name an embedded bundle: {', '.join(EMBEDDED)}"
            todo = hides if there and str(path) in EMBEDDED else todo
            got = "a file" if there else "nothing there"
            fail(BundleNotFoundError, str(path), "a bundle folder or a root with CURRENT", got, todo)
        if (path / MANIFEST).exists():
            return path.absolute()
        if not (path / CURRENT).exists():
            got, todo = "a folder with neither", hides if str(path) in EMBEDDED else "check the path"
            fail(BundleNotFoundError, str(path), f"a folder with {MANIFEST} or {CURRENT}", got, todo)
    return _named_by(path / CURRENT)


def _named_by(pointer: Path) -> Path:
    """Return the bundle folder whose hash a file beside it holds: CURRENT, or one of an embedded bundle's name."""
    line = read_regular(pointer, str(pointer)).removesuffix(b"\n")
    # CURRENT may hold anything: what goes into the error is short and printable.
    name = line[:100].decode("ascii", "backslashreplace")
    if len(line) > 64 or not is_hex64(name):
        todo = "write the hash of one of the folders beside it, or activate() one"
        fail(BundleFormatError, str(pointer), "one line of 64 lower-case hex digits", repr(name), todo)
    folder = pointer.parent.absolute() / name
    if not (folder / MANIFEST).exists():
        todo = "restore that folder, or activate() another"
        fail(BundleNotFoundError, str(pointer), f"{name}/{MANIFEST} beside it", "nothing there", todo)
    return folder


def read_prices(path: str | os.PathLike[str], candidates: Sequence[str]) -> PriceList:
    """Read a price file of the bundle's form and check that it prices exactly these candidates."""
    from ipr_engine.bundle.candidate_entry import parse_prices

    file = as_path(path, "path")
    return parse_prices(parse_json(read_regular(file, str(file)), str(file)), candidates, detailed=True)


def listed_files(document: Field, folder: Path) -> list[FileEntry]:
    """Return every file that a bundle.json lists besides itself, unverified."""
    from ipr_engine.bundle.encoder_entry import encoder_file_fields
    from ipr_engine.bundle.fitted_entries import PROMPT_HASHES, SUPPORT_KEYS, heads_fields, path_rows_file

    keys = document.object(_keys_of(document))
    # No file is read: whoever asks verifies those that it takes.
    fields = [keys["prices"], *keys["extra_files"].list()]
    for encoder in keys["encoders"].list():
        fields += encoder_file_fields(encoder)
    for heads in keys["heads"].list():
        parts = heads_fields(heads)
        fields.append(parts["weights"])
        fields += [f for key, f in parts["fitted_on"].mapping().items() if key == PROMPT_HASHES and f.value is not None]
    if keys["support"].value is not None:
        fields.append(keys["support"].object(SUPPORT_KEYS)["weights"])
    if "path_rows" in keys and (rows := path_rows_file(keys["path_rows"])) is not None:
        fields.append(rows)
    return [file_entry(field, folder) for field in fields]


def _parse(document: Field, folder: Path, digest: str) -> Bundle:
    """Return the bundle of a manifest; every entry and file is checked on the way."""
    from ipr_engine.bundle.calibration_entry import parse_maps
    from ipr_engine.bundle.candidate_entry import parse_candidates, parse_prices
    from ipr_engine.bundle.encoder_entry import parse_encoders
    from ipr_engine.bundle.fitted_entries import (
        check_conversations,
        deciding_sha256,
        parse_escalation,
        parse_heads,
        parse_path_rows,
        parse_support,
        parse_unsupported,
    )

    version = document.mapping().get("schema_version")
    if version is not None and version.integer(at_least=0) not in SCHEMA_VERSIONS:
        todo = "use the release of ipr_engine that wrote it, or write the bundle again"
        known = " or ".join(map(str, SCHEMA_VERSIONS))
        fail(BundleVersionError, version.where, f"schema_version {known}", version.value, todo)
    keys = document.object(_keys_of(document))
    # Only for the type checker: `object` has refused a manifest without the key.
    number = 1 if version is None else int(version.value)

    # Candidates and encoders come first: heads, prices and path rows are held against them.
    candidates = parse_candidates(keys["candidates"], number)
    names = [candidate.name for candidate in candidates]
    encoders = parse_encoders(keys["encoders"], folder, number)
    # Tasks and surface features alone count no tokens: heads read them beside an embedding.
    dims = {encoder.id: encoder.dim for encoder in encoders if encoder.kind not in ("task", "surface")}
    measured = {encoder.id: encoder.whole_dim for encoder in encoders if encoder.id in dims}
    old = number == 1
    heads = tuple(parse_heads(field, folder, names, dims, number) for field in keys["heads"].list(at_least=1))
    require_distinct([head.id for head in heads], keys["heads"].list())
    check_conversations(keys["heads"], heads, encoders)
    prices = file_entry(keys["prices"], folder)
    if old and keys["calibrations"].list():
        keys["calibrations"].fail("an empty list (schema_version 1 knows no calibrations)")
    extra = [file_entry(field, folder) for field in keys["extra_files"].list()]
    require_distinct([entry.relative for entry in extra], keys["extra_files"].list())
    keys["provenance"].mapping()
    keys["provenance"].require_finite_tree()
    escalation = parse_escalation(keys["escalation"], heads, names) if number >= 3 else None
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
        support=parse_support(keys["support"], folder, measured),
        escalation=escalation,
        calibrations=parse_maps(keys["calibrations"], tested=number >= 5),
        extra_files=read_only({entry.relative: entry.verify() for entry in extra}),
        provenance=read_only(keys["provenance"].value),
        path_rows=parse_path_rows(
            keys["path_rows"], folder, names, deciding_sha256(heads, names, escalation), own=number >= 6
        )
        if number >= 5
        else None,
        unsupported=parse_unsupported(keys["unsupported"], names, measured=keys["support"].value is not None)
        if number >= 9
        else None,
    )


def _keys_of(document: Field) -> tuple[str, ...]:
    """Return the keys that a manifest of its schema_version has."""
    version = document.mapping().get("schema_version")
    number = 1 if version is None else version.value
    # `_parse` refuses other versions with a better message than a missing key.
    known = number if number in SCHEMA_VERSIONS else 1
    later = (("escalation", 3), ("path_rows", 5), ("unsupported", 9))
    return (*_KEYS, *(key for key, since in later if known >= since))


def raised(manifest: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Return the manifest in this schema_version, or as it is where its own is as late; keys that are new say nothing."""
    if manifest["schema_version"] >= version:
        return dict(manifest)
    newer = {**manifest, "schema_version": version}
    if version >= 2:
        heads = manifest["heads"]
        newer["heads"] = [{**head, "fitted_on": {"prompt_hashes": None, **head["fitted_on"]}} for head in heads]
    if version >= 3:
        newer.setdefault("escalation", None)
    if version >= 4:
        newer["candidates"] = [{"max_output_tokens": None, **candidate} for candidate in manifest["candidates"]]
    if version >= 5:
        newer.setdefault("path_rows", None)
    if version >= 9:
        newer.setdefault("unsupported", None)
    return newer
