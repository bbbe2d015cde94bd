"""The heads of a bundle, its support and its escalation: what their entries in bundle.json say, read and written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.bundle.bundle_files import file_entry, heads_tensors, support_tensors
from ipr_engine.bundle.calibration import RuleConstants
from ipr_engine.bundle.fields import Field, fail, with_floats
from ipr_engine.bundle.spec import EscalationSpec, FittedOn, Float32, HeadsSpec, SupportSpec
from ipr_engine.errors import BundleShapeError, EncoderMismatchError

OUTPUTS = ("quality", "tokens")
ACTIVATIONS = ("relu", "silu", "gelu")
HEADS_KEYS = ("id", "encoder", "outputs", "activation", "weights", "candidates", "rule_constants", "fitted_on")
SUPPORT_KEYS = ("encoder", "weights")
PROMPT_HASHES = "prompt_hashes"
_FITTED_ON, _HASH_KEY = ("source", "prompts", "prompt_ids_sha256"), "hash_key"

Add = Callable[[str, bytes], dict[str, Any]]  # takes a file into the bundle, and gives what bundle.json says of it


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadsSource:
    """Heads to put into a bundle; tensors float32, named and shaped as docs/formats.md says.

    prompt_hashes: "texts" and "questions" of the fitting prompts, uint64 (data/overlap.py); a calibration sample is held against them.
        fitted_on.hash_key names the key they are hashed under.
    """

    id: str
    encoder: str
    outputs: Sequence[str] = ("quality",)
    activation: str = "relu"
    candidates: Sequence[str]
    rule_constants: RuleConstants | None = None
    fitted_on: FittedOn
    tensors: Mapping[str, Float32]
    prompt_hashes: Mapping[str, NDArray[np.uint64]] | None = None


def _known_encoder(field: Field, dims: Mapping[str, int]) -> str:
    if field.text() not in dims:
        field.fail(f"an encoder of this bundle ({', '.join(dims)})", EncoderMismatchError)
    return field.text()


def parse_heads(field: Field, folder: Path, names: Sequence[str], dims: Mapping[str, int], version: int) -> HeadsSpec:
    """Return the heads of one entry. names: the candidates'. dims: encoder -> its dimensions. version: the schema_version."""
    keys = field.object(HEADS_KEYS)
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
    """Return the support of the entry; None where it is null. dims: encoder -> its dimensions."""
    if field.value is None:
        return None
    keys = field.object(SUPPORT_KEYS)
    encoder = _known_encoder(keys["encoder"], dims)
    weights = file_entry(keys["weights"], folder)
    centroids, distances = support_tensors(weights.read(), weights.where, dim=dims[encoder])
    return SupportSpec(encoder=encoder, centroids=centroids, distances=distances)


def deciding_sha256(heads: Sequence[HeadsSpec], names: Sequence[str], escalation: EscalationSpec | None) -> list[str]:
    """Return the sha256 of the weights that decide: the first heads that cover every candidate, and the second tier's."""
    first = [entry.sha256 for entry in heads if set(entry.candidates) == set(names)][:1]
    return first + [entry.sha256 for entry in heads if escalation is not None and entry.id == escalation.heads]


def parse_escalation(field: Field, heads: Sequence[HeadsSpec], names: Sequence[str]) -> EscalationSpec | None:
    """Return which of these heads decide again, and where; None where the entry is null. names: the candidates'."""
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
    }


def _fitted_on_json(add: Add, head: HeadsSource, hashed: bool) -> dict[str, Any]:
    document = asdict(head.fitted_on)
    del document["prompt_hashes"]  # where a loaded bundle keeps them; here they come as arrays
    key = document.pop("hash_key")
    if not hashed:
        return document
    data = None if head.prompt_hashes is None else hash_bytes(head.prompt_hashes, f"heads {head.id!r}: prompt_hashes")
    entry = None if data is None else add(f"heads/{head.id}.prompts.safetensors", data)
    return {**document, "prompt_hashes": entry, **({} if key is None else {"hash_key": key})}


def hash_bytes(hashes: Mapping[str, NDArray[np.uint64]], where: str) -> bytes:
    """Return the file of the fitting prompts' hashes."""
    from safetensors.numpy import save

    for name, values in hashes.items():
        if values.dtype != np.uint64 or values.ndim != 1:
            fail(
                BundleShapeError,
                f"{where}: {name}",
                "a (n,) uint64 array",
                f"{values.dtype} {values.shape}",
                "convert it",
            )
    return save({name: np.asarray(values, order="C") for name, values in sorted(hashes.items())})


def support_json(add: Add, support: SupportSpec | None) -> dict[str, Any] | None:
    """Return the entry of the support; None for none."""
    if support is None:
        return None
    tensors = {"centroids": support.centroids, "distances": support.distances}
    weights = add("support.safetensors", tensor_bytes(tensors, "support"))
    return {"encoder": support.encoder, "weights": weights}


def tensor_bytes(tensors: Mapping[str, Float32], where: str) -> bytes:
    """Return safetensors bytes without metadata; the library orders them by dtype and name."""
    from safetensors.numpy import save

    for name, tensor in tensors.items():
        if not isinstance(tensor, np.ndarray) or tensor.dtype != np.float32:
            got = tensor.dtype if isinstance(tensor, np.ndarray) else type(tensor).__name__
            fail(BundleShapeError, f"{where}: {name}", "a float32 array", str(got), "convert it")
    return save({name: np.asarray(tensor, order="C") for name, tensor in sorted(tensors.items())})


def heads_sha256(head: HeadsSource) -> str:
    """sha256 of the weights file that `write_bundle` makes of these heads, for `PathRows.heads`."""
    return hashlib.sha256(tensor_bytes(head.tensors, f"heads {head.id!r}")).hexdigest()
