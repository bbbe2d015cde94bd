"""A bundle: encoders, heads, prices and calibrations in one immutable, hashed folder (docs/design.md, section 6).

Reading starts at `Bundle.load`, writing at `write_bundle`. spec.py holds the objects, load.py makes them after every
check (fields.py for JSON, tensors.py for arrays, files.py for bytes), write.py goes back to disk through draft.py;
encoder_entry.py does both for encoders, candidate_entry.py for candidates, path_rows.py for path rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipr_engine.bundle.calibration import CalibrationMap, CalibrationSample, Knot, OperatingPoint
from ipr_engine.bundle.encoder_entry import (
    ConcatenatedSource,
    EncoderSource,
    EncoderSpec,
    TransformerSource,
    concatenated_identity,
    encoder_identity,
)
from ipr_engine.bundle.load import Bundle, read_prices
from ipr_engine.bundle.performance import Performance
from ipr_engine.bundle.price import Price, PriceTier
from ipr_engine.bundle.spec import (
    Candidate,
    EscalationSpec,
    FittedOn,
    HeadsSpec,
    PathRows,
    PriceList,
    RuleConstants,
    SupportSpec,
)
from ipr_engine.bundle.tested import TestedTau

if TYPE_CHECKING:
    from ipr_engine.bundle.write import (
        HeadsSource,
        activate,
        heads_sha256,
        with_calibrations,
        with_extra_files,
        with_performance,
        with_prices,
        write_bundle,
    )

__all__ = [
    "Bundle",
    "CalibrationMap",
    "CalibrationSample",
    "Candidate",
    "ConcatenatedSource",
    "EncoderSource",
    "EncoderSpec",
    "EscalationSpec",
    "FittedOn",
    "HeadsSource",
    "HeadsSpec",
    "Knot",
    "OperatingPoint",
    "PathRows",
    "Performance",
    "Price",
    "PriceList",
    "PriceTier",
    "RuleConstants",
    "SupportSpec",
    "TestedTau",
    "TransformerSource",
    "activate",
    "concatenated_identity",
    "encoder_identity",
    "heads_sha256",
    "read_prices",
    "with_calibrations",
    "with_extra_files",
    "with_performance",
    "with_prices",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    """Load write.py when it is first asked for: serving reads bundles only, and imports should be quick."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ipr_engine.bundle import write

    return getattr(write, name)
