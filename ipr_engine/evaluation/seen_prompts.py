"""This file tells which of the prompts that a bundle is judged on its heads were fitted on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.owner_key import Key, keys_beside
from ipr_engine.bundle import Bundle
from ipr_engine.data import Outcomes, key_of_hashes, overlap, read_prompt_hashes
from ipr_engine.errors import KeyMismatchError


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
