"""What `train` is asked: the outcomes and the encoder fitted on, how heads are fitted, and where the bundle goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipr_engine._validate import random_seed
from ipr_engine.audit.owner_key import Key
from ipr_engine.bundle.checks import require_day, require_text
from ipr_engine.bundle.write import require_root
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.by_name import ESTIMATORS
from ipr_engine.training.frozen_encoder import EncoderChoice, Folder


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The prompts that heads are fitted on, and the encoder that embeds them.

    Attributes:
        outcomes: folder of outcome data (docs/outcome-data.md) with output tokens; or several: then the heads speak of the
            first, and every other source's level is taken out by an intercept.
        candidates: JSON: {"date", "candidates": [{name, family, provider, input_usd_per_1m, output_usd_per_1m, and
            optionally source (the name in the outcomes, or {source: name}), context_window, features, token_ratio (else
            measured, see token_fits.with_tokenizers), tokenizer, latency_ms, ...}]}.
        split: the split to fit on; None takes every prompt.
        intercepts: with several sources, whether each but the first gets an intercept that the heads leave out: yes where the
            same prompts would score differently there (another checker, another sampling); no where the sources are parts
            of one traffic.
        encoder: one or several; by default the embedded default bundle's table.
        cache: folder that keeps a transformer's embeddings, so that the next fit on these prompts does not embed them again.
    """

    outcomes: Path | str | Sequence[Path | str]
    candidates: Path | str
    split: str | None = "train"
    intercepts: bool = True
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    cache: Folder | None = None

    @property
    def folders(self) -> list[Path | str]:
        """The folders of outcomes, the first one home."""
        return [self.outcomes] if isinstance(self.outcomes, (str, Path)) else list(self.outcomes)


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How heads are fitted.

    Attributes:
        estimator: one of by_name.ESTIMATORS, or "auto": the best closed form by nested cross-validation on these prompts.
        options: of the estimator (the fields of network_config.NetworkConfig).
        seed: of folds and centroids.
        run: folder that keeps the finished parts of a network's fit; the same call goes on from there after an interruption.
        allow_constant: deliver heads that tell prompts apart no better than a constant does (training/constant.py), marked as
            such in the bundle, instead of refusing.
    Raises:
        InvalidInputError: an unknown estimator, options of "auto", or a seed out of range.
    """

    estimator: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    run: Path | str | None = None
    allow_constant: bool = False

    def __post_init__(self) -> None:
        if self.estimator != "auto" and self.estimator not in ESTIMATORS:
            raise InvalidInputError(
                f"estimator: expected 'auto' or one of {', '.join(ESTIMATORS)}, got {self.estimator!r}"
            )
        if self.options and self.estimator == "auto":
            raise InvalidInputError(f"options: 'auto' has none, got {', '.join(self.options)}; name the estimator")
        random_seed("seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class BundleTarget:
    """Where a new bundle goes, and what it is called.

    Attributes:
        root: bundle root; the new bundle becomes its CURRENT.
        name, created: of the bundle; the day as YYYY-MM-DD.
        key: the owner's, under which the bundle keeps hashes of its prompts; None takes ROOT/owner.key, and makes it where it is
            not there. It belongs to no bundle: keep it out of what you hand on.
    Raises:
        InvalidInputError: a blank name, no day, or a root that cannot be one.
    """

    root: Path | str
    name: str
    created: str
    key: Key | None = None

    def __post_init__(self) -> None:
        require_text("name", self.name)
        require_day("created", self.created)
        require_root("out", self.root)
