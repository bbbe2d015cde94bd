"""A bundle holds encoders, heads, prices and calibrations in one immutable, hashed folder (docs/formats.md).

Reading starts at `Bundle.load`, writing at `write_bundle`. spec.py holds the objects: `BundleSpec` and its parts. load.py makes
them once every check has passed: fields.py reads JSON, bundle_files.py bytes and tensors. write.py writes them to a new folder.
What reads and writes one entry of bundle.json is called after it: candidate_entry.py, encoder_entry.py, fitted_entries.py ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipr_engine._lazy_names import lazy_names
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
    UnsupportedDefault,
)

if TYPE_CHECKING:
    from ipr_engine.bundle.encoder_source import (
        ConcatenatedSource,
        EncoderSource,
        SurfaceSource,
        TaskSource,
        TransformerSource,
        concatenated_identity,
        encoder_identity,
        folded_width_identity,
        head_view_identity,
        surface_identity,
        task_identity,
    )
    from ipr_engine.bundle.fitted_entries import HeadsSource, heads_sha256
    from ipr_engine.bundle.rewrite import (
        with_calibrations,
        with_extra_files,
        with_performance,
        with_prices,
        with_unsupported,
    )
    from ipr_engine.bundle.write import BundleParts, activate, write_bundle
else:  # serving only reads bundles, and should start quickly
    __getattr__ = lazy_names(
        __name__,
        {
            "BundleParts": "ipr_engine.bundle.write",
            "ConcatenatedSource": "ipr_engine.bundle.encoder_source",
            "EncoderSource": "ipr_engine.bundle.encoder_source",
            "HeadsSource": "ipr_engine.bundle.fitted_entries",
            "SurfaceSource": "ipr_engine.bundle.encoder_source",
            "TaskSource": "ipr_engine.bundle.encoder_source",
            "TransformerSource": "ipr_engine.bundle.encoder_source",
            "activate": "ipr_engine.bundle.write",
            "concatenated_identity": "ipr_engine.bundle.encoder_source",
            "encoder_identity": "ipr_engine.bundle.encoder_source",
            "folded_width_identity": "ipr_engine.bundle.encoder_source",
            "head_view_identity": "ipr_engine.bundle.encoder_source",
            "surface_identity": "ipr_engine.bundle.encoder_source",
            "task_identity": "ipr_engine.bundle.encoder_source",
            "heads_sha256": "ipr_engine.bundle.fitted_entries",
            "with_calibrations": "ipr_engine.bundle.rewrite",
            "with_extra_files": "ipr_engine.bundle.rewrite",
            "with_performance": "ipr_engine.bundle.rewrite",
            "with_prices": "ipr_engine.bundle.rewrite",
            "with_unsupported": "ipr_engine.bundle.rewrite",
            "write_bundle": "ipr_engine.bundle.write",
        },
    )

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
    "SurfaceSource",
    "TaskSource",
    "TestedTau",
    "TransformerSource",
    "UnsupportedDefault",
    "activate",
    "concatenated_identity",
    "encoder_identity",
    "folded_width_identity",
    "head_view_identity",
    "heads_sha256",
    "read_prices",
    "surface_identity",
    "task_identity",
    "with_calibrations",
    "with_extra_files",
    "with_performance",
    "with_prices",
    "with_unsupported",
    "write_bundle",
]
