"""This file says where a candidate's row and price come from: stand-ins for outcomes, constant heads, days of prices (docs/formats.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ipr_engine.bundle.head_rows import row_of
from ipr_engine.bundle.spec import BundleSpec, HeadsSpec

# Keys of the provenance. CONSTANT: candidate -> why its head counts as constant; FIRST_ALONE: why the path rows of a two-tier
# bundle are those of the first tier alone; PRICE_DATES: candidate -> of which day its price is, where it is older than the list.
CONSTANT = "constant"
FIRST_ALONE = "path_rows"
PRICE_DATES = "price_dates"
TASK_COLUMN = "task_column"  # of the prompts' table that the fit read tasks from
# Said of "no head" where every one is constant. It may still give prompts different numbers: what is not shown is that they mean anything.
SHOWN_BLIND = "is shown to read the prompt: beyond prices and lengths, chance may decide"


def price_dates(bundle: BundleSpec) -> dict[str, str]:
    """Return candidate -> of which day its price is, YYYY-MM-DD.

    It is the list's day, or an older one where new prices left the candidate out.
    """
    stated = bundle.provenance.get(PRICE_DATES)
    older = stated if isinstance(stated, dict) else {}
    return {name: str(older.get(name, bundle.prices.date)) for name in bundle.names}


def price_days(bundle: BundleSpec) -> str:
    """Return the day of a bundle's prices; where they are of several, the newest first, each with how many are of it."""
    counts = Counter(price_dates(bundle).values())
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{day} ({count} of {len(bundle.names)})" for day, count in sorted(counts.items(), reverse=True))


def prior_of(bundle: BundleSpec, name: str) -> str | None:
    """Return what stands in for a candidate that has no outcomes of its own; None for any other.

    For example "prior from claude-x, lowered to mean quality 0.58".
    """
    added = bundle.provenance.get("added")
    note = added.get(name) if isinstance(added, dict) else None
    like = note.get("prior_from") if isinstance(note, dict) else None
    if not isinstance(note, dict) or not isinstance(like, list) or not like:
        return None
    lowered = note.get("lowered")
    level = lowered.get("mean_quality") if isinstance(lowered, dict) else None
    stated = f", lowered to mean quality {level:.2f} by its price" if isinstance(level, float) else ""
    return f"prior from {', '.join(map(str, like))}{stated}"


def estimator_of(bundle: BundleSpec) -> str | None:
    """Return what the heads were fitted with, as `ipr train` wrote it down, of a two-tier bundle the first ones'; None where nobody did."""
    settings = _made(bundle).get("settings")
    named = settings.get("estimator") if isinstance(settings, Mapping) else None
    return named if isinstance(named, str) else None


def copies_of(bundle: BundleSpec) -> int:
    """Return how many copies of every prompt, written otherwise, the heads were fitted on too, of a two-tier bundle the first ones."""
    copies = _made(bundle).get("augment")
    return copies if isinstance(copies, int) else 0


def _made(bundle: BundleSpec) -> Mapping[str, Any]:
    """Return the provenance of a bundle, of a two-tier bundle that of its first heads."""
    first = bundle.provenance.get("first")
    made = first.get("provenance", {}) if isinstance(first, Mapping) else bundle.provenance
    return made if isinstance(made, Mapping) else {}


def constant_of(bundle: BundleSpec) -> dict[str, str]:
    """Return candidate -> why its head is constant.

    It is what the fit wrote down, and rows of zeros, which an earlier release did not tell.

    Of a two-tier bundle what is written of either heads, and zeros of the first.
    """
    return _constant_rows(bundle.names, bundle.quality_heads, bundle.provenance)


def constant_throughout(bundle: BundleSpec) -> set[str]:
    """Return the candidates whose heads are constant in every tier: of what a prompt says, nothing reaches their predictions."""
    second = bundle.escalation_heads
    if second is None:
        return set(constant_of(bundle))
    tiers = (("first", bundle.quality_heads), ("second", second))
    # A two-tier bundle keeps the provenance of the two that it was joined of.
    own = [_constant_rows(bundle.names, heads, _provenance_of(bundle, tier)) for tier, heads in tiers]
    return set(own[0]) & set(own[1])


def _provenance_of(bundle: BundleSpec, tier: str) -> Mapping[str, Any]:
    joined = bundle.provenance.get(tier)
    found = joined.get("provenance") if isinstance(joined, dict) else None
    return found if isinstance(found, dict) else {}


def _constant_rows(names: Sequence[str], heads: HeadsSpec, provenance: Mapping[str, Any]) -> dict[str, str]:
    stated = provenance.get(CONSTANT)
    written = stated if isinstance(stated, dict) else {}
    found = {}
    for row, name in enumerate(names):
        if name in written:
            found[name] = str(written[name])
        # Bundles of earlier releases say nothing of constant heads: their zeros tell.
        elif _is_flat(heads, row):
            found[name] = "its row is zero: one quality for every prompt"
    return found


def task_column(bundle: BundleSpec) -> str | None:
    """Return the column of the prompts' table that says what each prompt is for, as the fit read it; None where the heads tell no tasks
    apart, or the provenance does not say."""
    places = (bundle.provenance, *(_provenance_of(bundle, tier) for tier in ("first", "second")))
    stated = next((found for place in places if isinstance(found := place.get(TASK_COLUMN), str)), None)
    return stated if bundle.tasks else None


def constant_notice(constant: Mapping[str, str], candidates: int) -> str:
    """Return one line that names the constant heads, and says what follows where there are no others."""
    stated = f"constant heads (they tell prompts apart no better than a mean): {', '.join(constant)}"
    return stated + (f"; no head {SHOWN_BLIND}" if len(constant) == candidates else "")


def _is_flat(heads: HeadsSpec, row: int) -> bool:
    """Return whether nothing of x reaches this candidate's logit."""
    own = row_of(heads.tensors, row)
    return not any(own[name].any() for name in ("skip", "out", "tree_leaf") if name in own)
