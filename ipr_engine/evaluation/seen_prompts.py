"""This file keeps apart what is judged and what was fitted: test prompts that heads have seen, training prompts that the test asks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.owner_key import Key, keys_beside
from ipr_engine.bundle import Bundle
from ipr_engine.data import Outcomes, key_of_hashes, overlap, read_prompt_hashes
from ipr_engine.errors import InvalidInputError, KeyMismatchError


def seen_prompts(bundle: Bundle, test: Outcomes, key: Key | None) -> tuple[npt.NDArray[np.bool_] | None, str | None]:
    """Return which prompts, or questions of them, the heads were fitted on, (rows,); or None, and why that is not known.

    Args:
        key: the owner's, under which the bundle hashed its fitting prompts; None reads ROOT/owner.key beside the bundle.
    """
    keys = keys_beside(bundle.path.parent, key)
    seen = np.zeros(len(test), np.bool_)
    for heads in (bundle.quality_heads, bundle.escalation_heads):
        if heads is None:
            continue
        if heads.fitted_on.prompt_hashes is None:
            return None, "the bundle keeps no hashes of its fitting prompts"
        try:
            own = key_of_hashes(heads.fitted_on, keys)
        except KeyMismatchError as error:
            return None, str(error)
        seen |= overlap(test, read_prompt_hashes(heads.fitted_on.prompt_hashes), own)
    return seen, None


def unasked(train: Outcomes, test: Outcomes, progress: Callable[[str], None]) -> Outcomes:
    """Return the training prompts whose text and question the test prompts do not ask: what fits on outcomes may see these alone.

    Raises:
        InvalidInputError: the test prompts ask every question of the training prompts.
    """
    others, texts = train.without_questions_of(test), set(test.prompts)
    kept = others.take(np.array([text not in texts for text in others.prompts], dtype=np.bool_))
    if not len(kept):
        raise InvalidInputError(
            f"outcomes: the test prompts of {train.source} ask every question of its training prompts, so no baseline can be fitted; "
            "split by question with `ipr data split`"
        )
    if len(kept) < len(train):
        progress(f"{len(train) - len(kept)} training prompts ask a question of the test prompts: they are left out")
    return kept
