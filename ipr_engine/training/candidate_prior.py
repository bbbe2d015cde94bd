"""A row for a candidate without outcomes: that of the most similar candidate, or the mean of a family's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ipr_engine.bundle import Bundle, Candidate, HeadsSpec, Price
from ipr_engine.bundle.spec import SHARED_TENSOR
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.candidate_row import LAYER, Row

FREE_USD = 1e-3  # per 1 M tokens: below it prices no longer tell candidates apart


def most_similar(bundle: Bundle, candidate: Candidate, price: Price) -> str:
    """Of the candidate's family where there is one, else of all: the nearest in the ratio of prices; ties by name."""

    def distance(other: Candidate) -> tuple[bool, float, str]:
        listed = bundle.prices.prices[other.name]
        return other.family.casefold() != candidate.family.casefold(), _distance(price, listed), other.name

    return min(bundle.candidates, key=distance).name


def _distance(a: Price, b: Price) -> float:
    pairs = ((a.input_usd_per_1m, b.input_usd_per_1m), (a.output_usd_per_1m, b.output_usd_per_1m))
    return sum(abs(math.log(max(one, FREE_USD) / max(other, FREE_USD))) for one, other in pairs)


def prior_row(heads: HeadsSpec, members: Sequence[str]) -> Row:
    """The mean of the members' rows of every tensor, float32; of one member its own bits.

    Raises:
        InvalidInputError: their hidden layers differ, so that no row predicts the mean of their logits.
    """
    rows = [heads.candidates.index(name) for name in members]
    for name in LAYER:
        if name in heads.tensors and not (heads.tensors[name][rows] == heads.tensors[name][rows[0]]).all():
            raise InvalidInputError(
                f"family: {', '.join(members)} have hidden layers of their own ({name}), which have no mean; name one with like"
            )
    row: Row = {}
    for name, tensor in heads.tensors.items():
        if name != SHARED_TENSOR:
            mean = tensor[rows[0]] if len(rows) == 1 else tensor[rows].mean(axis=0, dtype=np.float64)
            row[name] = np.array(mean, np.float32, order="C")
    return row
