"""A bundle holds encoders, heads, prices and calibrations in one immutable, hashed folder (docs/formats.md).

Reading starts at `Bundle.load`, writing at `write_bundle`. spec.py holds the objects: `BundleSpec` and its parts. load.py makes
them once every check has passed: fields.py reads JSON, bundle_files.py bytes and tensors. write.py writes them to a new folder.
What reads and writes one entry of bundle.json is called after it: candidate_entry.py, encoder_entry.py, fitted_entries.py ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipr_engine.bundle.calibration import (
    CalibratedPoint,
    CalibrationMap,
    CalibrationSample,
    Knot,
    RuleConstants,
    TestedTau,
)
from ipr_engine.bundle.load import Bundle, read_prices
from ipr_engine.bundle.performance import Performance
from ipr_engine.bundle.price import Price, PriceTier
from ipr_engine.bundle.spec import (
    BundleSpec,
    Candidate,
    EncoderSpec,
    EscalationSpec,
    FittedOn,
    HeadsSpec,
    PathRows,
    PriceList,
    SupportSpec,
)

if TYPE_CHECKING:
    from ipr_engine.bundle.encoder_source import (
        ConcatenatedSource,
        EncoderSource,
        TransformerSource,
        concatenated_identity,
        encoder_identity,
    )
    from ipr_engine.bundle.fitted_entries import HeadsSource, heads_sha256
    from ipr_engine.bundle.rewrite import with_calibrations, with_extra_files, with_performance, with_prices
    from ipr_engine.bundle.write import BundleParts, activate, write_bundle

__all__ = [
    "Bundle",
    "BundleParts",
    "BundleSpec",
    "CalibratedPoint",
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
    """Import what makes and writes bundles when it is first asked for: serving only reads them, and should start quickly."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ipr_engine.bundle import encoder_source

    if hasattr(encoder_source, name):
        return getattr(encoder_source, name)
    from ipr_engine.bundle import fitted_entries, rewrite, write

    return next(getattr(module, name) for module in (write, rewrite, fitted_entries) if hasattr(module, name))
