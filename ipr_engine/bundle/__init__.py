"""A bundle: encoders, heads, prices and calibrations in one immutable, hashed folder (docs/design.md, section 6).

Reading starts at `Bundle.load`, writing at `write_bundle`. spec.py holds the objects, load.py makes them after every
check (fields.py for JSON, tensors.py for arrays, files.py for bytes), write.py goes back to disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .load import Bundle, read_prices
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

if TYPE_CHECKING:
    from .write import EncoderSource, HeadsSource, activate, with_extra_files, with_prices, write_bundle

__all__ = [
    "Bundle",
    "Candidate",
    "EncoderSource",
    "EncoderSpec",
    "FittedOn",
    "HeadsSource",
    "HeadsSpec",
    "Price",
    "PriceList",
    "RuleConstants",
    "SupportSpec",
    "activate",
    "encoder_identity",
    "read_prices",
    "with_extra_files",
    "with_prices",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    """Load write.py when it is first asked for: serving reads bundles only, and imports should be quick."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import write

    return getattr(write, name)
