"""Which class serves which kind of encoder: a table of lazy factories, so that a tier's packages load only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ipr_engine.encoders.base import Encoder
from ipr_engine.errors import BackendUnavailableError, EncoderMismatchError

if TYPE_CHECKING:
    from ipr_engine.bundle import EncoderSpec


def _make_static(spec: EncoderSpec, isa: str) -> Encoder:
    from ipr_engine.encoders.static import StaticEncoder

    return StaticEncoder.load(spec.table, spec.tokenizer, spec.config, max_tokens=spec.max_tokens, isa=isa)


ENCODERS: Mapping[str, Callable[[EncoderSpec, str], Encoder]] = MappingProxyType({"static": _make_static})


def make_encoder(spec: EncoderSpec, *, isa: str = "auto") -> Encoder:
    """Load and plan the encoder a bundle names.

    Raises:
        BackendUnavailableError: this version has no tier of that kind.
        EncoderMismatchError: the files are no longer those the bundle was verified with.
    """
    if spec.kind not in ENCODERS:
        raise BackendUnavailableError(f"encoder {spec.id!r}: kind {spec.kind!r} is not one of {', '.join(ENCODERS)}")
    encoder = ENCODERS[spec.kind](spec, isa)
    if encoder.identity != spec.identity:
        raise EncoderMismatchError(
            f"encoder {spec.id!r}: expected identity {spec.identity[:12]}, got {encoder.identity[:12]}; "
            "a file changed after the bundle was verified: load it again"
        )
    return encoder
