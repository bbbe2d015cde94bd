"""A candidate added without outcomes: other candidates' rows stand in, lowered to what its price makes likely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.edit import NewCandidate, with_candidate
from ipr_engine.bundle.origin import constant_of
from ipr_engine.training.add.added import Added
from ipr_engine.training.add.candidate_prior import lowered, mean_qualities, price_bound, prior_row, shift_to
from ipr_engine.training.add.inputs import AskedEntry, note_of


def add_prior(
    base: Bundle,
    entry: AskedEntry,
    members: tuple[str, ...],
    out: Path | str | None,
    created: str,
    progress: Callable[[str], None],
) -> Added:
    """Add the candidate as the mean of the `members`' rows; the other arguments are those of `add_model`.

    Without prompts its token_ratio cannot be measured: that of candidates with its tokenizer stands in, else that of the members.
    """
    candidate, price, named, ratios = entry
    if candidate.name in ratios.of_records | ratios.of_tokenizer:
        of = candidate.tokenizer
        alike = [c.token_ratio for c in base.candidates if of is not None and c.tokenizer == of]
        stand_in = alike or [c.token_ratio for c in base.candidates if c.name in members]
        candidate = replace(candidate, token_ratio=float(np.mean(stand_in)))
    qualities = mean_qualities(base)
    bound = price_bound(base, members, price, qualities)
    shift = shift_to(base, members, qualities, bound)
    report = f"no outcomes: {candidate.name} starts as {' + '.join(members)}"
    progress(report if shift == 0 else f"{report}, its mean quality lowered to {bound.quality:.3f}: {bound.reason}")
    rows = lowered(prior_row(base.quality_heads, members), shift)
    made = None if shift == 0 else {"mean_quality": bound.quality, "logit_shift": shift, "reason": bound.reason}
    note = {"prior_from": list(members), "prompts": 0, "lowered": made}
    constant = _inherited_constant(base, members)
    if constant is not None:
        progress(f"constant head of {candidate.name}: {constant}")
    path = None if base.path_rows is None else f"stale: {candidate.name} has no outcomes and no path rows"
    folder = with_candidate(
        base,
        NewCandidate(
            candidate=candidate,
            price=price,
            rows=rows,
            note=note_of(note, created),
            called=named,
            constant=constant,
        ),
        root=out,
        created=created,
    )
    lowered_to = None if shift == 0 else bound.quality
    return Added(
        folder,
        candidate.name,
        0,
        members,
        members,
        None,
        None,
        None,
        constant=constant,
        lowered_to=lowered_to,
        path=path,
    )


def _inherited_constant(base: Bundle, members: Sequence[str]) -> str | None:
    """Why a prior made of these rows is constant: each of them is; None where one is not."""
    known = constant_of(base)
    if not all(member in known for member in members):
        return None
    return f"it stands in by constant rows, {', '.join(f'{member} ({known[member]})' for member in members)}"
