"""`seen_by_routers` makes what other routers may see of an evaluation: training outcomes, and embeddings of any prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle
from ipr_engine.data import Outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.router_interface import FittingData, read_only
from ipr_engine.measures.routing import WeightedOutcomes
from ipr_engine.measures.sweeps import worth_grid

Array = npt.NDArray[np.float64]


class KnownEmbeddings:
    """`KnownEmbeddings` give the embeddings (prompts, dim) of prompts: those that there are, others by the engine's encoder.

    Args:
        parts: prompts and their embeddings (prompts, dim). encode: embeds other prompts.
    """

    def __init__(self, parts: Sequence[tuple[Sequence[str], Array]], encode: Callable[[Sequence[str]], Array]) -> None:
        self._known = {prompt: row for row, prompt in enumerate(prompt for prompts, _ in parts for prompt in prompts)}
        self._x, self._encode = np.concatenate([x for _, x in parts]), encode

    def __call__(self, prompts: Sequence[str]) -> Array:
        rows = [self._known.get(prompt, -1) for prompt in prompts]
        found = np.asarray(self._x[rows])
        new = [i for i, row in enumerate(rows) if row < 0]
        if new:
            found[new] = self._encode([prompts[i] for i in new])
        return found


def seen_by_routers(
    bundle: Bundle,
    names: Sequence[str],
    train: Outcomes,
    outcomes: WeightedOutcomes,
    test: Outcomes | None,
    embed: KnownEmbeddings,
    seed: int,
) -> tuple[FittingData, npt.NDArray[np.bool_]]:
    """Return what routers are fitted on, and which of the training rows that is, (rows,): none of a question that the test rows ask.

    Args:
        train, outcomes: the training rows, and their qualities and costs. test: the test rows; None where folds keep questions apart.
    Raises:
        InvalidInputError: the test rows ask every question of the training rows.
    """
    kept = np.ones(len(train), dtype=np.bool_)
    if test is not None:
        asked, others = set(test.prompts), set(train.without_questions_of(test).prompt_ids)
        kept &= [key in others and text not in asked for key, text in zip(train.prompt_ids, train.prompts, strict=True)]
    if not kept.any():
        raise InvalidInputError(
            f"--router: the test prompts of {train.source} ask every question of its training prompts, so no router can be fitted; "
            "split by question with `ipr data split`"
        )
    data = FittingData(
        candidates=tuple(names),
        prices=tuple(bundle.prices.prices[name] for name in names),
        prompts=train.prompts,
        quality=outcomes.quality,
        cost_usd=outcomes.cost,
        embed=embed,
        worths=read_only(worth_grid(outcomes.cost)),
        seed=seed,
    )
    return data.take(kept), kept
