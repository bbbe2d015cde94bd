"""This file reads and writes the entries of heads, support, escalation and path rows in bundle.json (docs/formats.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ipr_engine._validate import number
from ipr_engine.bundle.bundle_files import (
    FOREST_VERSION,
    file_entry,
    hash_bytes,
    heads_tensors,
    read_tensors,
    require_shapes,
    support_tensors,
    tensor_bytes,
)
from ipr_engine.bundle.calibration import RuleConstants
from ipr_engine.bundle.conversation import (
    ALL,
    CONVERSATION_VERSION,
    LAST,
    RECENCY,
    WEIGHABLE,
    Conversation,
)
from ipr_engine.bundle.fields import REWRITE, Field, fail, with_floats
from ipr_engine.bundle.head_rows import FOREST
from ipr_engine.bundle.spec import (
    MOST_ROWS,
    MOST_TOKENS,
    TOKENS_UNIT,
    EncoderSpec,
    EscalationSpec,
    FittedOn,
    Float32,
    HeadsSpec,
    PathRows,
    SupportSpec,
    UnsupportedDefault,
)
from ipr_engine.errors import (
    BundleShapeError,
    BundleValueError,
    EncoderMismatchError,
    InvalidInputError,
    PathMismatchError,
)

OUTPUTS = ("quality", "tokens")
ACTIVATIONS = ("relu", "silu", "gelu")
_HEADS = ("id", "encoder", "outputs", "activation", "weights", "candidates", "rule_constants", "fitted_on")
SUPPORT_KEYS = ("encoder", "weights")
PROMPT_HASHES = "prompt_hashes"
CONVERSATION = "conversation"
_FITTED_ON, _HASH_KEY = ("source", "prompts", "prompt_ids_sha256"), "hash_key"

# Of path rows: their file, the keys of their entry, and the arrays in the file.
PATH = "path.safetensors"
_REFIT = "fit the heads and their path anew with `ipr train`"
_ROWS_KEYS = ("candidates", "heads", "arrays")
_ROWS_SHAPES = {
    "quality": ("rows", "models"),
    "tokens_out": ("rows", "models"),
    "outcome": ("rows", "models"),
    "billed_tokens": ("rows",),
    "tokens_in": ("rows", "models"),
    "again_quality": ("rows", "models"),
    "again_tokens_out": ("rows", "models"),
}
_ROWS_DTYPES = {
    "quality": "F16",
    "tokens_out": "F16",
    "outcome": "U8",
    "billed_tokens": "U32",
    "tokens_in": "F32",
    "again_quality": "F16",
    "again_tokens_out": "F16",
}
_AGAIN = ("again_quality", "again_tokens_out")
_OWN = "tokens_in"  # of schema_version 6, where a candidate names its tokenizer
_HELD = {"F16": np.float16, "F32": np.float32, "U8": np.uint8, "U32": np.uint32}

Add = Callable[[str, bytes], dict[str, Any]]  # takes a file into the bundle, and gives what bundle.json says of it


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadsSource:
    """A `HeadsSource` holds heads to put into a bundle; their tensors are named, typed and shaped as docs/formats.md says.

    prompt_hashes: "texts" and "questions" of the fitting prompts, uint64 (data/overlap.py); a calibration sample is held against them.
        fitted_on.hash_key names the key they are hashed under.
    conversation: what of several turns of a user the heads are given; "recency" stands on tables alone.
    """

    id: str
    encoder: str
    outputs: Sequence[str] = ("quality",)
    activation: str = "relu"
    candidates: Sequence[str]
    rule_constants: RuleConstants | None = None
    fitted_on: FittedOn
    tensors: Mapping[str, NDArray[Any]]
    prompt_hashes: Mapping[str, NDArray[np.uint64]] | None = None
    conversation: Conversation = ALL


def _known_encoder(field: Field, dims: Mapping[str, int]) -> str:
    """Return the id of an encoder of this bundle."""
    if field.text() not in dims:
        field.fail(f"an encoder of this bundle ({', '.join(dims)})", EncoderMismatchError)
    return field.text()


def heads_fields(field: Field, version: int = CONVERSATION_VERSION) -> dict[str, Field]:
    """Return the values of heads' entry by key; what they are given of several turns is said where it is not all."""
    says = version >= CONVERSATION_VERSION and CONVERSATION in field.mapping()
    return field.object((*_HEADS, CONVERSATION) if says else _HEADS)


def parse_heads(field: Field, folder: Path, names: Sequence[str], dims: Mapping[str, int], version: int) -> HeadsSpec:
    """Return the heads of one entry. names: the candidates'. dims: encoder -> its dimensions. version: the schema_version."""
    keys = heads_fields(field, version)
    says = CONVERSATION in keys
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
            weights.read(), weights.where, models=len(candidates), dim=dims[encoder], outputs=outputs, version=version
        ),
        # "all" is what no key says: one bundle has one form
        conversation=cast(Conversation, keys[CONVERSATION].one_of((LAST, RECENCY))) if says else ALL,
    )


def check_conversations(entries: Field, heads: Sequence[HeadsSpec], encoders: Sequence[EncoderSpec]) -> None:
    """Refuse heads that are given weighed turns by an encoder that has more than tables; entries: of these heads."""
    known = {spec.id: spec for spec in encoders}
    for entry, head in zip(entries.list(), heads, strict=True):
        parts = [known[part] for part in known[head.encoder].parts] or [known[head.encoder]]
        if head.conversation == RECENCY and (other := next((p for p in parts if p.kind not in WEIGHABLE), None)):
            entry.mapping()[CONVERSATION].fail(
                f"'last', or no key: encoder {other.id!r} is a {other.kind}, and only tables weigh turns",
                EncoderMismatchError,
            )


def _rule_constants(field: Field) -> RuleConstants | None:
    """Return the constants of rule `fixed`; None where the entry is null."""
    if field.value is None:
        return None
    keys = field.object(("hi", "lo"))
    hi = keys["hi"].number(at_least=0, at_most=1)
    return RuleConstants(hi=hi, lo=keys["lo"].number(at_least=0, at_most=hi))


def _fitted_on(field: Field, folder: Path, version: int) -> FittedOn:
    """Return the prompts that heads were fitted on, their hashes verified."""
    keyed = version >= 5 and _HASH_KEY in field.mapping()  # written only where there is a key
    keys = field.object((*_FITTED_ON, *((PROMPT_HASHES,) if version > 1 else ()), *((_HASH_KEY,) if keyed else ())))
    hashes = None if version == 1 or keys[PROMPT_HASHES].value is None else file_entry(keys[PROMPT_HASHES], folder)
    if keyed and hashes is None:
        keys[_HASH_KEY].fail(f"no key where {PROMPT_HASHES} is null")
    return FittedOn(
        source=keys["source"].text(),
        prompts=keys["prompts"].integer(at_least=0),
        prompt_ids_sha256=keys["prompt_ids_sha256"].sha256(),
        prompt_hashes=None if hashes is None else hashes.verify(),
        hash_key=keys[_HASH_KEY].text() if keyed else None,
    )


def parse_support(field: Field, folder: Path, dims: Mapping[str, int]) -> SupportSpec | None:
    """Return the support of the entry; None where it is null. dims: encoder -> its columns of the whole prompt's embedding."""
    if field.value is None:
        return None
    keys = field.object(SUPPORT_KEYS)
    encoder = _known_encoder(keys["encoder"], dims)
    weights = file_entry(keys["weights"], folder)
    centroids, distances = support_tensors(weights.read(), weights.where, dim=dims[encoder])
    return SupportSpec(encoder=encoder, centroids=centroids, distances=distances)


def deciding_sha256(heads: Sequence[HeadsSpec], names: Sequence[str], escalation: EscalationSpec | None) -> list[str]:
    """Return the sha256 of the weights that decide: the first heads that cover every candidate, and the second tier's."""
    # As `BundleSpec.quality_heads` picks them.
    first = [entry.sha256 for entry in heads if set(entry.candidates) == set(names)][:1]
    return first + [entry.sha256 for entry in heads if escalation is not None and entry.id == escalation.heads]


def parse_escalation(field: Field, heads: Sequence[HeadsSpec], names: Sequence[str]) -> EscalationSpec | None:
    """Return which of these heads decide again, and where; None where the entry is null. names: the candidates'."""
    if field.value is None:
        return None
    keys = field.object(("heads", "gap"))
    covering = [entry.id for entry in heads if set(entry.candidates) == set(names)]
    # The first heads that cover every candidate decide first: only the others can decide again.
    if keys["heads"].text() not in covering[1:]:
        keys["heads"].fail("the id of heads that cover every candidate and are not the first such")
    first, second = (next(h for h in heads if h.id == id) for id in (covering[0], keys["heads"].text()))
    if set(first.outputs) != set(second.outputs):
        keys["heads"].fail(f"heads with the outputs of {first.id!r}, {', '.join(first.outputs)}", EncoderMismatchError)
    return EscalationSpec(heads=second.id, gap=keys["gap"].number(at_least=0))


UNSUPPORTED_VERSION = 9  # the first schema_version that says who answers unsupported prompts


def parse_unsupported(field: Field, names: Sequence[str], *, measured: bool) -> UnsupportedDefault | None:
    """Return who answers unsupported prompts; None where the entry is null. measured: whether the bundle measures support."""
    if field.value is None:
        return None
    keys = field.object(("min_support", "model"))
    if not measured:
        field.fail("null in a bundle without support")
    least = keys["min_support"].number(at_least=0)
    if not 0 < least <= 1:
        keys["min_support"].fail("a number in (0, 1]", BundleValueError)
    return UnsupportedDefault(min_support=least, model=keys["model"].one_of(names))


def unsupported_json(said: UnsupportedDefault | None) -> dict[str, Any] | None:
    """Return the entry of who answers unsupported prompts; InvalidInputError where it is nothing of the kind, or its number is none."""
    if said is None:
        return None
    if not isinstance(said, UnsupportedDefault):
        raise InvalidInputError(f"unsupported: expected an UnsupportedDefault or None, got {type(said).__name__}")
    return {"min_support": number("unsupported.min_support", said.min_support), "model": said.model}


def heads_version(heads: Sequence[HeadsSource]) -> int:
    """Return the least schema_version that holds these heads: their tensors, and what they are given of a conversation."""
    if any(head.conversation != ALL for head in heads):
        return CONVERSATION_VERSION
    return FOREST_VERSION if any(name in head.tensors for head in heads for name in FOREST) else 1


def head_json(add: Add, head: HeadsSource, hashed: bool) -> dict[str, Any]:
    """Return the entry of heads. hashed: whether the schema_version knows hashes of the fitting prompts."""
    return {
        "id": head.id,
        "encoder": head.encoder,
        "outputs": list(head.outputs),
        "activation": head.activation,
        "weights": add(f"heads/{head.id}.safetensors", tensor_bytes(head.tensors, f"heads {head.id!r}")),
        "candidates": list(head.candidates),
        "rule_constants": None if head.rule_constants is None else with_floats(asdict(head.rule_constants), "hi", "lo"),
        "fitted_on": _fitted_on_json(add, head, hashed),
        **({} if head.conversation == ALL else {CONVERSATION: head.conversation}),
    }


def _fitted_on_json(add: Add, head: HeadsSource, hashed: bool) -> dict[str, Any]:
    """Return the entry of the fitting prompts; their hashes are taken into the bundle."""
    document = asdict(head.fitted_on)
    del document["prompt_hashes"]  # where a loaded bundle keeps them; here they come as arrays
    # Written only where the hashes have a key: entries of plain ones keep their bytes.
    key = document.pop("hash_key")
    if not hashed:
        return document
    data = None if head.prompt_hashes is None else hash_bytes(head.prompt_hashes, f"heads {head.id!r}: prompt_hashes")
    entry = None if data is None else add(f"heads/{head.id}.prompts.safetensors", data)
    return {**document, "prompt_hashes": entry, **({} if key is None else {"hash_key": key})}


def support_json(add: Add, support: SupportSpec | None) -> dict[str, Any] | None:
    """Return the entry of the support; None for none."""
    if support is None:
        return None
    tensors = {"centroids": support.centroids, "distances": support.distances}
    # centroids: (k, dim), distances: (101,)
    weights = add("support.safetensors", tensor_bytes(tensors, "support"))
    return {"encoder": support.encoder, "weights": weights}


def heads_sha256(head: HeadsSource) -> str:
    """Return the sha256 of the weights file that `write_bundle` makes of these heads, for `PathRows.heads`."""
    return hashlib.sha256(tensor_bytes(head.tensors, f"heads {head.id!r}")).hexdigest()


def path_rows_file(field: Field) -> Field | None:
    """Return the FILE that an entry `path_rows` lists; None where it is null."""
    return None if field.value is None else field.object(_ROWS_KEYS)["arrays"]


def parse_path_rows(
    field: Field, folder: Path, names: Sequence[str], deciding: Sequence[str], *, own: bool
) -> PathRows | None:
    """Return the rows that an entry `path_rows` lists, checked; None where it is null.

    Args:
        names: of the bundle's candidates, in order.
        deciding: sha256 of the weights that decide, the first heads' and, in a bundle of two tiers, the second's.
        own: whether they may hold candidates' own input tokens, as from schema_version 6 on.
    """
    if field.value is None:
        return None
    keys = field.object(_ROWS_KEYS)
    candidates = keys["candidates"].names(at_least=1, known=names)
    if list(candidates) != [name for name in names if name in candidates]:
        keys["candidates"].fail("them in the order of the bundle's candidates")
    heads = tuple(item.sha256() for item in keys["heads"].list(at_least=1))
    # In a bundle of two tiers rows may still speak of the first heads alone.
    if heads not in (tuple(deciding[:1]), tuple(deciding)):
        known = " and ".join(digest[:12] for digest in deciding) or "none that cover every candidate"
        got = ", ".join(digest[:12] for digest in heads)
        fail(PathMismatchError, keys["heads"].where, f"the sha256 of the heads that decide ({known})", got, _REFIT)
    file = file_entry(keys["arrays"], folder)
    arrays = _rows_arrays(file.read(), file.where, len(candidates), again=len(heads) > 1, own=own)
    return PathRows(candidates=candidates, heads=heads, **arrays)


def _rows_arrays(data: bytes, where: str, models: int, *, again: bool, own: bool) -> dict[str, Any]:
    """Return the arrays of path rows as they are held in memory: read-only, output tokens in ones."""
    arrays = read_tensors(data, where, _ROWS_DTYPES)
    if _OWN in arrays and not own:
        fail(BundleShapeError, f"{where}: {_OWN}", "no such tensor before schema_version 6", "one", REWRITE)
    expected = [name for name in _ROWS_DTYPES if (again or name not in _AGAIN) and name != _OWN]
    for name in [name for name in _ROWS_DTYPES if name != _OWN]:
        if (name in arrays) != (name in expected):
            tiers = "the sha256 of two heads are listed" if again else "the sha256 of one of the heads is listed"
            wanted = f"this tensor ({tiers})" if name in expected else f"no such tensor ({tiers})"
            fail(BundleShapeError, f"{where}: {name}", wanted, "none" if name in expected else "one", REWRITE)
    rows = len(arrays["quality"]) if arrays["quality"].ndim else 0
    if not 1 <= rows <= MOST_ROWS:
        fail(BundleShapeError, f"{where}: quality", f"1 to {MOST_ROWS} rows", f"{rows} rows")
    require_shapes(arrays, where, _ROWS_SHAPES, {"rows": rows, "models": models})
    for name in ("quality", "again_quality", "tokens_out", "again_tokens_out", _OWN):
        if name in arrays:
            _require_range(arrays[name], f"{where}: {name}", 1 if name.endswith("quality") else None)
    for name in ("tokens_out", "again_tokens_out"):
        if name in arrays:
            arrays[name] = arrays[name].astype(np.float32) * TOKENS_UNIT  # (rows, models), from 64s to ones
            arrays[name].flags.writeable = False
    return arrays


def _require_range(values: NDArray[Any], where: str, most: int | None) -> None:
    """Raise BundleValueError for values below 0, or above `most`."""
    low, high = values.min(), values.max()
    if low < 0 or (most is not None and high > most):
        top = "" if most is None else f" and <= {most}"
        fail(BundleValueError, where, f"values >= 0{top}", f"{low} to {high}")


def rows_version(rows: PathRows | None) -> int:
    """Return the least schema_version that holds these rows."""
    return 1 if rows is None else 5 if rows.tokens_in is None else 6


def path_rows_json(add: Callable[[str, bytes], Mapping[str, Any]], rows: PathRows) -> dict[str, Any]:
    """Return what bundle.json says of these rows; `add` takes their file in."""
    return {"candidates": list(rows.candidates), "heads": list(rows.heads), "arrays": add(PATH, _rows_bytes(rows))}


def _rows_bytes(rows: PathRows) -> bytes:
    """Return the file of these rows."""
    from safetensors.numpy import save

    arrays = {}
    for name, stored in _ROWS_DTYPES.items():
        values = getattr(rows, name)
        # Arrays that a bundle does not have are left out of the file.
        if values is None:
            continue
        tokens = name.endswith("tokens_out")
        held = np.float32 if tokens else _HELD[stored]
        if not isinstance(values, np.ndarray) or values.dtype != held:
            got = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
            fail(BundleShapeError, f"path_rows: {name}", f"a {np.dtype(held)} array", str(got), "convert it")
        arrays[name] = _in_64s(values, f"path_rows: {name}") if tokens else np.ascontiguousarray(values)
    return save(arrays)


def _in_64s(tokens: Float32, where: str) -> NDArray[np.float16]:
    """Return output tokens as the file counts them, in 64s as float16."""
    if tokens.size and tokens.max() > MOST_TOKENS:
        fail(BundleValueError, where, f"at most {MOST_TOKENS} output tokens", f"{tokens.max():g}", "clip them")
    return np.ascontiguousarray((tokens / TOKENS_UNIT).astype(np.float16))
