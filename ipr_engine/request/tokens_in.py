"""Input tokens of a whole request by each candidate's own count, as a caller tells them: a provider's usage, say, or its tokenizer's count.

engine.route(prompt, policy, tokens_in={"gemini-1.5-pro": 128_001})              # the others keep their estimates
engine.route_many(prompts, policy, tokens_in=[{"gemini-1.5-pro": 128_001}, None])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import nonnegative
from ipr_engine.request.by_candidate import PerCandidate, per_candidate

TokensIn: TypeAlias = PerCandidate[float]


def given_tokens(tokens_in: TokensIn, batch: int, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """(batch, models) input tokens by each candidate's own count; NaN where its estimate stands, since it is not named.

    Args:
        tokens_in: as of `per_candidate`.
    Raises:
        InvalidInputError: no such array or mapping, an unknown name, or a number that is not finite and >= 0.
    """
    return per_candidate("tokens_in", tokens_in, batch, names, absent=np.nan, read=_tokens)


def _tokens(where: str, value: object, name: str) -> float:
    return nonnegative(where, value)
