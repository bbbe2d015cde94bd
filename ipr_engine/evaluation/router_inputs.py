"""`seen_by_routers` makes what other routers may see of an evaluation: training outcomes, and embeddings of any prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle
from ipr_engine.data import Outcomes
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
    embed: KnownEmbeddings,
    seed: int,
) -> FittingData:
    """Return what routers are fitted on.

    Args:
        train, outcomes: the training rows, and their qualities and costs.
    """
    return FittingData(
        candidates=tuple(names),
        prices=tuple(bundle.prices.prices[name] for name in names),
        prompts=train.prompts,
        quality=read_only(outcomes.quality),
        cost_usd=read_only(outcomes.cost),
        embed=embed,
        worths=read_only(worth_grid(outcomes.cost)),
        seed=seed,
    )
