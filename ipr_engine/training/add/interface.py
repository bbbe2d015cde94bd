"""This file holds and reads the inputs of `add_model`: the candidate's entry, who stands in for it, the rows of its outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import random_seed
from ipr_engine._version import __version__
from ipr_engine.audit.owner_key import Key, OwnerKey
from ipr_engine.bundle import Bundle, Candidate, Price
from ipr_engine.bundle.candidates_file import RatiosAsked, read_candidates
from ipr_engine.bundle.checks import require_day
from ipr_engine.bundle.origin import prior_of
from ipr_engine.bundle.write import require_root
from ipr_engine.data import Outcomes, key_of_hashes, name_in_source, overlap, prompt_hashes, read_prompt_hashes
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.add.refresh import Refreshed
from ipr_engine.training.add.routing_help import RoutingHelp
from ipr_engine.training.training_inputs import FEWEST_JUDGED

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """An `Evidence` holds the outcomes of the candidate, and how they are used.

    Attributes:
        outcomes: folder of outcome data in which the candidate is judged. None: a prior stands in, marked in the bundle.
        split: of the outcomes; None takes every prompt.
        consistency: None keeps everything frozen. A weight refreshes the shared trunk and every quality row instead, by the
            paper's consistency loss (`refresh.refresh`): old qualities move, and how far is reported and kept in the bundle.
        seed: of folds.
        encoder_options: who runs a transformer that the heads read. cache: folder that keeps its embeddings.
        key: the owner's, under which the bundle hashed its fitting prompts; None reads owner.key beside the bundle.
    """

    outcomes: Path | str | None = None
    split: str | None = "train"
    consistency: float | None = None
    seed: int = 0
    encoder_options: LoadOptions | None = None
    cache: Path | str | None = None
    key: Key | None = None

    def __post_init__(self) -> None:
        if self.consistency is not None and self.outcomes is None:
            raise InvalidInputError("consistency: a trunk is refreshed from outcomes, and none are given; leave it out")
        random_seed("seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class PriorFrom:
    """A `PriorFrom` names who stands in for a candidate without outcomes: another candidate's rows, or the mean of a family's.

    With neither, the most similar candidate stands in: of its family if there is one, nearest in price. In each case the row is
    lowered to what the price makes likely.
    """

    like: str | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        if self.like is not None and self.family is not None:
            raise InvalidInputError("like, family: expected one of them, got both")

    @property
    def stated(self) -> bool:
        """Return whether a candidate or a family is named."""
        return self.like is not None or self.family is not None


@dataclass(frozen=True, kw_only=True)
class AddTarget:
    """An `AddTarget` is the place and the day of the bundle that has the new candidate.

    Attributes:
        created: the day as YYYY-MM-DD.
        root: bundle root, None for the old bundle's own.
        activate: the new bundle becomes the root's CURRENT. Else it only lies there, until `bundle.activate` names it.
    Raises:
        InvalidInputError: no day, or a root that cannot be one.
    """

    created: str
    root: Path | str | None = None
    activate: bool = True

    def __post_init__(self) -> None:
        require_day("created", self.created)
        if self.root is not None:
            require_root("out", self.root)


@dataclass(frozen=True)
class Added:
    """An `Added` holds the bundle that `add_model` wrote, and figures of the new candidate.

    Attributes:
        folder: the new bundle's. candidate: its name. prompts: that it was fitted on, 0 for a prior.
        prior_from: the candidates whose rows stand in for its quality; empty where it has outcomes.
        lowered_to: mean quality that a prior was lowered to by its price (candidate_prior.py), None where it is not above that.
        tokens_from: the same for its output tokens.
        quality, predicted, brier: mean outcome, mean prediction out of fold (of the row beside frozen heads) and its Brier score;
            None for a prior.
        refreshed: what a refreshed trunk gained and forgot; None where everything stayed frozen.
        path: what became of the bundle's path rows, in words; None where it has none.
        imputed: prompts more that its row was fitted on, where the others' outcomes say what it would have scored.
        help: whether routing gains by it; None of a prior, and where the trunk was refreshed.
        constant: why its head counts as constant (measures/prediction.py), None where it does not; of a prior that its members'
            heads all do. Unlike `train` it is delivered, since few prompts rarely tell the head apart; the bundle marks it.
    """

    folder: Path
    candidate: str
    prompts: int
    prior_from: tuple[str, ...]
    tokens_from: tuple[str, ...]
    quality: float | None
    predicted: float | None
    brier: float | None
    refreshed: Refreshed | None = None
    constant: str | None = None
    lowered_to: float | None = None
    path: str | None = None
    imputed: int = 0
    help: RoutingHelp | None = None


class AskedEntry(NamedTuple):
    """An `AskedEntry` is the entry of the candidates' file that is to be added.

    Attributes:
        named: its name in the outcomes, one for all sources or {source: name}.
        ratios: whose token_ratio is to be measured.
    """

    candidate: Candidate
    price: Price
    named: Mapping[str, str] | str
    ratios: RatiosAsked


def asked_entry(path: Path, base: Bundle, name: str | None) -> AskedEntry:
    """Read the entry of that name, or the one entry that the bundle does not have."""
    file = read_candidates(path)
    listed = [candidate.name for candidate in file.candidates]
    new = [entry for entry in listed if entry not in base.names]
    if name is not None and name not in listed:
        raise InvalidInputError(f"name: {name!r} is not in {path}; listed: {', '.join(listed)}")
    if name is not None and name in base.names:
        raise InvalidInputError(f"name: {name!r} is in the bundle already; remove it first, or give the new one a name")
    if name is None and len(new) != 1:
        got = f"{len(new)} ({', '.join(new)})" if new else "0"
        raise InvalidInputError(f"candidates: expected one entry that the bundle does not have, got {got}; name one")
    chosen = new[0] if name is None else name
    candidate = file.candidates[listed.index(chosen)]
    price = file.prices.prices[chosen]
    dated = replace(price, basis=f"{price.basis}, {file.prices.date}")
    return AskedEntry(candidate, dated, file.named[chosen], file.ratios)


def members_of(base: Bundle, like: str | None, family: str | None) -> tuple[str, ...]:
    """Return the candidates with outcomes of their own that stand in: the one named, or those of the family."""
    if like is not None:
        if like not in base.names:
            raise InvalidInputError(f"like: unknown {like!r}; known: {', '.join(base.names)}")
        if prior_of(base, like) is not None:
            raise InvalidInputError(
                f"like: {like!r} has no outcomes of its own ({prior_of(base, like)}); name one that has"
            )
        return (like,)
    members = tuple(candidate.name for candidate in base.candidates if candidate.family == family)
    if not members:
        known = sorted({candidate.family for candidate in base.candidates})
        raise InvalidInputError(f"family: unknown {family!r}; known: {', '.join(known)}")
    judged = tuple(name for name in members if prior_of(base, name) is None)
    if not judged:
        raise InvalidInputError(
            f"family: nobody of {family!r} has outcomes of its own; name another, or a candidate with like"
        )
    return judged


def judged_rows(part: Outcomes, called: str, name: str) -> Outcomes:
    """Take the prompts on which the candidate has a quality."""
    judged: Sequence[int] | npt.NDArray[np.int64] = ()
    if called in part.models:
        judged = np.flatnonzero(~np.isnan(part.quality[:, part.models.index(called)]))
    if len(judged) < FEWEST_JUDGED:
        raise InvalidInputError(
            f"outcomes: {name!r} is judged on {len(judged)} prompts of {part.source} (as {called!r}), at least "
            f'{FEWEST_JUDGED} are needed; name what the outcomes call it with "source", or add it with a prior'
        )
    return part.take(np.asarray(judged))


def old_quality(rows: Outcomes, base: Bundle) -> Array:
    """Return the realised quality of the bundle's candidates: `old_measure`."""
    return old_measure(rows, base, "quality")


def old_measure(rows: Outcomes, base: Bundle, measure: str) -> Array:
    """Return a measure of the bundle's candidates, (rows, models), by the names in its provenance, else their own; NaN where there is
    none."""
    sources = base.provenance.get("sources")
    named = sources if isinstance(sources, dict) else {}
    table = np.full((len(rows), len(base.names)), np.nan)
    for m, name in enumerate(base.names):
        called = name_in_source(named, name, rows.source)
        if called in rows.models:
            table[:, m] = getattr(rows, measure)[:, rows.models.index(called)]
    return table


def unseen(base: Bundle, rows: Outcomes, keys: Sequence[OwnerKey]) -> npt.NDArray[np.bool_]:
    """Tell for each row whether it is known that the deciding heads were not fitted on it: (rows,). Of a bundle without hashes it is
    never known."""
    fitted_on = base.quality_heads.fitted_on
    if fitted_on.prompt_hashes is None:
        return np.zeros(len(rows), np.bool_)
    return ~overlap(rows, read_prompt_hashes(fitted_on.prompt_hashes), key_of_hashes(fitted_on, keys))


def hashes_with(base: Bundle, rows: Outcomes, keys: Sequence[OwnerKey]) -> dict[str, npt.NDArray[np.uint64]] | None:
    """Add the hashes of these rows to those of the fitting prompts, so that no calibration takes them for unseen. None where none are
    kept."""
    fitted_on = base.quality_heads.fitted_on
    if fitted_on.prompt_hashes is None:
        return None
    new = prompt_hashes(rows.prompts, rows.question_keys, key_of_hashes(fitted_on, keys))
    return {part: np.union1d(old, new[part]) for part, old in read_prompt_hashes(fitted_on.prompt_hashes).items()}


def note_of(facts: dict[str, Any], created: str) -> dict[str, Any]:
    """Return the facts with recipe, version and day, for the bundle's provenance."""
    return {"recipe": "ipr add-model", "version": __version__, "created": created, **facts}
