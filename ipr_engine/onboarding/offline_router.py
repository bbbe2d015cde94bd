"""`offline_router` writes a bundle of public scores and list prices; nobody is asked, and every candidate is marked as a prior."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine._version import __version__
from ipr_engine.bundle import Bundle, BundleParts, FittedOn, HeadsSource, write_bundle
from ipr_engine.bundle.load import CURRENT
from ipr_engine.bundle.origin import CONSTANT, PRICE_DATES
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.onboarding.offline_models import OfflineModel, OfflineModels
from ipr_engine.onboarding.prior_card import CARD, TYPICAL, OfflineRouter, PriorCandidate, prior_card
from ipr_engine.onboarding.public_models import PublicModels
from ipr_engine.policy.price_table import expected_cost
from ipr_engine.training.add.candidate_prior import CHEAPER_LOGITS, REQUEST
from ipr_engine.training.train_options import EncoderChoice

RECIPE = "ipr init --offline"
RULE = "minmax"  # without outcomes there are no path rows, and nothing is certified
WHY_CONSTANT = "public scores tell one quality for every prompt"


def offline_router(
    models: OfflineModels,
    known: PublicModels,
    root: Path,
    *,
    tau: float,
    prompts: Sequence[str] = (),
    say: Callable[[str], None] = lambda message: None,
) -> OfflineRouter:
    """Write a bundle whose qualities are public scores; it becomes the current one of its folder.

    Args:
        root: the folder of a project's bundles. prompts: figures are of these; the bundle takes nothing of them.
    Raises:
        InvalidInputError: the folder has a bundle of outcomes.
    """
    refuse_outcomes(root)
    qualities = _qualities(models)
    taken = {
        one.name: ", ".join(source for source in known.sources if source in one.public.scores) for one in models.models
    }
    for one, quality in zip(models.models, qualities, strict=True):
        like = f" (like: {one.public.name})" if one.like else ""
        lowered = ", lowered: it is cheaper" if quality.lowered else ""
        say(f"{one.name}: public scores of {one.public.name}{like}, {taken[one.name]}{lowered}")
    folder = _write(models, known, qualities, taken, root, root.absolute().parent.name or "router")
    engine = Engine.load(root)
    options: dict[str, Any] = {} if prompts else {"billed_tokens": TYPICAL}
    decided = engine.route_many(list(prompts) or ["-"], engine.policy(tau=tau, rule=RULE), **options)
    cost, index = np.asarray(decided.result.cost_usd, np.float64), np.asarray(decided.result.index, np.int64)
    if (index < 0).any():
        say(f"{int((index < 0).sum())} prompts fit into no candidate's window, and count for none")
    paid = cost[np.arange(len(index)), index][index >= 0].mean()
    best = int(np.argmax([quality.middle for quality in qualities]))
    candidates = [
        PriorCandidate(
            name=one.name,
            from_model=one.public.name,
            like=one.like,
            scores={source: {"mean": s.mean, "prompts": s.prompts} for source, s in one.public.scores.items()},
            quality=quality.middle,
            low=quality.low,
            high=quality.high,
            lowered=quality.lowered,
            output_tokens=_tokens(one),
            cost_usd=float(cost[:, place].mean()),
            share=float((index == place).mean()),
            alike=[
                other.name
                for other in models.models
                if other is not one and not known.told_apart(one.public, other.public)
            ],
        )
        for place, (one, quality) in enumerate(zip(models.models, qualities, strict=True))
    ]
    whole = float(cost[:, best].mean())
    return OfflineRouter(
        bundle=folder,
        tau=tau,
        rule=RULE,
        prompts=len(prompts),
        candidates=candidates,
        sources=[source for source in known.sources if any(source in one.scores for one in candidates)],
        prices_date=models.listed.prices.date,
        of_best_cost=float(paid) / whole if whole > 0 else None,
    )


def refuse_outcomes(root: Path) -> None:
    """Refuse a folder of bundles whose current one knows outcomes: a prior would take its place.

    Raises:
        InvalidInputError: names the folder.
    """
    if (root / CURRENT).exists() and Bundle.load(root).provenance.get("recipe") != RECIPE:
        raise InvalidInputError(
            f"--offline: {root} has a bundle of outcomes, and a prior would take its place; name another folder with --out"
        )


@dataclass(frozen=True)
class _Quality:
    middle: float
    low: float
    high: float
    lowered: bool = False


def _qualities(models: OfflineModels) -> list[_Quality]:
    """Return the quality of each candidate; that of one which is cheaper than the model named in its place is lowered, as a prior of
    `ipr add-model` is."""
    found = []
    for one in models.models:
        assert one.public.quality is not None  # who has an ability has a quality
        quality, listed = _Quality(*one.public.quality), one.public.price
        price = models.listed.prices.prices[one.name]
        if one.like and listed is not None:
            stand_in = replace(price, **{k: getattr(listed, k) for k in ("input_usd_per_1m", "output_usd_per_1m")})
            own, others = expected_cost([price, stand_in], [[REQUEST[0]]], [[REQUEST[1]]])[0]
            if own < others:
                quality = _Quality(
                    _lowered(quality.middle), _lowered(quality.low), _lowered(quality.high), lowered=True
                )
        found.append(quality)
    return found


def _lowered(quality: float) -> float:
    return float(1 / (1 + (1 - quality) / quality * np.exp(CHEAPER_LOGITS)))


def _tokens(model: OfflineModel) -> float:
    assert model.public.output_tokens is not None
    return model.public.output_tokens


def _write(
    models: OfflineModels,
    known: PublicModels,
    qualities: Sequence[_Quality],
    taken: Mapping[str, str],
    root: Path,
    name: str,
) -> Path:
    frozen, created = EncoderChoice().open(), time.strftime("%Y-%m-%d")
    names = [one.name for one in models.models]
    middle = np.array([quality.middle for quality in qualities])
    told = [(quality.middle, quality.low, quality.high) for quality in qualities]
    nothing = np.zeros((len(names), frozen.encoder.dim), np.float32)
    heads = HeadsSource(
        id="prior",
        encoder=frozen.id,
        outputs=("quality", "tokens"),
        candidates=names,
        fitted_on=FittedOn(
            source=f"nothing; a prior from public scores ({', '.join(known.sources)})",
            prompts=0,
            prompt_ids_sha256=sha256(b"").hexdigest(),
        ),
        tensors={
            "skip": nothing,
            "bias": np.asarray(np.log(middle / (1 - middle)), np.float32),
            "len_skip": nothing.copy(),
            "len_bias": np.log(np.array([_tokens(one) for one in models.models])).astype(np.float32),
        },
    )
    older = {name: day for name, day in models.price_dates.items() if day != models.listed.prices.date}
    notes = {
        one.name: {
            "recipe": RECIPE,
            "version": __version__,
            "created": created,
            "prior_from": [f"public scores of {one.public.name} ({taken[one.name]})"],
            "prompts": 0,
            "lowered": None
            if not quality.lowered
            else {
                "mean_quality": quality.middle,
                "logit_shift": -CHEAPER_LOGITS,
                "reason": f"it is cheaper than {one.public.name}",
            },
        }
        for one, quality in zip(models.models, qualities, strict=True)
    }
    return write_bundle(
        root,
        BundleParts(
            name=f"{name} (prior)",
            created=created,
            candidates=models.listed.candidates,
            encoders=frozen.sources,
            heads=[heads],
            prices=models.listed.prices,
            extra_files={CARD: prior_card(models, known, taken, dict(zip(names, told, strict=True)))},
            provenance={
                "recipe": RECIPE,
                "version": __version__,
                "outcomes": [],
                "sources": models.listed.named,
                "added": notes,
                CONSTANT: dict.fromkeys(names, WHY_CONSTANT),
                **({PRICE_DATES: older} if older else {}),
            },
        ),
    )
