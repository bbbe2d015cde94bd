"""An option of loading that no encoder of a bundle heeds is told here.

Where an engine loads a bundle that is a warning, since the engine may swap to bundles that heed it; of a command that reads
one bundle it is an error. What no bundle would heed, `LoadOptions` refuses itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ipr_engine.bundle.spec import BundleSpec, EncoderSpec
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.tiers import HEEDED
from ipr_engine.errors import InvalidInputError


def reads_transformer(bundle: BundleSpec) -> bool:
    """Return whether the heads, first or second, read a transformer, alone or beside others."""
    return any(spec.kind == "transformer" for spec in _read_by_heads(bundle))


def warn_of_unheeded(bundle: BundleSpec, options: LoadOptions) -> None:
    """Log the options that were given and cannot have an effect on this bundle."""
    _warn(_unheeded(bundle, options))


def refuse_unheeded(bundle: BundleSpec, options: LoadOptions) -> None:
    """Raise InvalidInputError for an option that cannot have an effect on this bundle; encoder_folders are but places to look in."""
    for told in _unheeded(bundle, replace(options, encoder_folders=())):
        raise InvalidInputError(told)


def warn_of_table(options: LoadOptions) -> None:
    """Log the options that were given and cannot have an effect on tables, which heads are to be fitted on."""
    given = [
        f"{name}: {getattr(options, name)!r}"
        for name in ("tier", "device", "threads", "batches")
        if getattr(options, name) != getattr(LoadOptions(), name)
    ]
    _warn(
        [f"{', '.join(given)} is for a transformer, and every encoder here is a table: it has no effect"]
        if given
        else []
    )


def warn_by_tier(options: LoadOptions, tier: str, model: str) -> None:
    """Log the options that were given and are not heeded by the tier that "auto" took for a model."""
    told = []
    for name, heeding in HEEDED.items():
        by_fallback = name == "threads" and options.fallback is not None
        if getattr(options, name) is not None and tier not in heeding and not by_fallback:
            told.append(
                f"{name}: {getattr(options, name)!r} has no effect: {tier} runs {model!r}, and {' and '.join(heeding)} would heed it; "
                "leave it out, or name such a tier"
            )
    _warn(told)


def _unheeded(bundle: BundleSpec, options: LoadOptions) -> list[str]:
    transformers = [spec for spec in _read_by_heads(bundle) if spec.kind == "transformer"]
    told = []
    given = {"tier": None if options.tier == "auto" else options.tier, "threads": options.threads}
    for name, value in given.items():
        if value is not None and not transformers:
            told.append(
                f"{name}: {value!r} is for a transformer, and the heads of bundle {bundle.name!r} read a table alone; leave it out"
            )
    if options.encoder_folders and all(spec.files for spec in transformers):
        folders = ", ".join(map(str, options.encoder_folders))
        told.append(
            f"encoder_folders: bundle {bundle.name!r} references no transformer, so that none is looked for in {folders}; leave it out"
        )
    return told


def _warn(told: list[str]) -> None:
    if told:
        from logging import getLogger  # `import ipr_engine` does without it

        getLogger(__name__).warning("%s", "; ".join(told))


def _read_by_heads(bundle: BundleSpec) -> Iterator[EncoderSpec]:
    """Yield the encoders that the heads read; of one that joins others their parts too."""
    again = bundle.escalation_heads
    ids = [bundle.quality_heads.encoder, *([] if again is None else [again.encoder])]
    while ids:
        spec = bundle.encoder(ids.pop())
        ids += spec.parts
        yield spec
