"""Two identities may be one transformer in another arithmetic, or cut at another length: an error says so where it can be known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ipr_engine._files import sha256_hex
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.tiers import TRANSFORMER_TIERS

if TYPE_CHECKING:
    from ipr_engine.encoders.transformer import TransformerEncoder

LENGTHS = 1024  # tried one by one; longer ones in powers of two
# encoder -> file of the int8 graph that may be meant -> what `_forms` made
_MADE: WeakKeyDictionary[TransformerEncoder, dict[Path | None, Mapping[str, tuple[str | None, int]]]] = (
    WeakKeyDictionary()
)


def same_model(encoders: Iterable[Encoder], identity: str, int8: Path | None = None) -> str:
    """Return how the transformer of that identity differs from one of the encoders, as a clause with what to do; "" where neither is
    that model, or it cannot be known.

    int8: the int8 graph that may be meant; an identity has its hash.
    """
    from ipr_engine.encoders.transformer import TransformerEncoder  # a table's engine does without it

    for encoder in encoders:
        if isinstance(encoder, TransformerEncoder) and (form := _forms(encoder, int8).get(identity)) is not None:
            return (
                f" (the same model: {_form(*form)} there, {_form(encoder.arithmetic, encoder.max_tokens)} here; heads serve the form "
                "that they were fitted on, which ipr train takes as --dtype and --max-tokens)"
            )
    return ""


def _forms(encoder: TransformerEncoder, int8: Path | None) -> Mapping[str, tuple[str | None, int]]:
    """Return identity -> (arithmetic, max_tokens) of each form of a model, made once an encoder.

    Thousands are hashed, in 0.15 to 0.3 s: a log of another encoder asks at each of its lines.
    """
    made = _MADE.setdefault(encoder, {})
    if int8 not in made:
        forms: dict[str, tuple[str | None, int]] = {}
        for arithmetic in _arithmetics(encoder, int8):
            for length in _lengths(encoder):
                forms.setdefault(encoder.spec.identity(length, dtype=arithmetic), (arithmetic, length))
        made[int8] = forms
    return made[int8]


def _arithmetics(encoder: TransformerEncoder, int8: Path | None) -> list[str | None]:
    names = {None, encoder.arithmetic, *(dtype for tier in TRANSFORMER_TIERS.values() for dtype in tier.roles)} - {
        "int8"
    }
    if int8 is not None and int8.exists():
        names.add(f"int8 {sha256_hex(int8.read_bytes())}")
    return sorted(names, key=str)


def _lengths(encoder: TransformerEncoder) -> Iterator[int]:
    most = encoder.spec.positions or 1 << 17
    yield encoder.max_tokens
    yield from range(1, min(most, LENGTHS) + 1)
    length = 2 * LENGTHS
    while length < most:
        yield length
        length *= 2
    yield most


def _form(arithmetic: str | None, length: int) -> str:
    dtype = "float32" if arithmetic is None else arithmetic.partition(" ")[0]  # int8 with the hash of its file
    return f"dtype={dtype!r} and max_tokens={length}"
