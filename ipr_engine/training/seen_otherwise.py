"""`seen_otherwise` embeds copies of the fitting prompts, written otherwise: heads that are fitted on them too heed such edits less."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.data import EmbeddingCache, embed_prompts
from ipr_engine.data.prompt_edits import written_otherwise
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.task_columns import columns_of, mark_tasks


def seen_otherwise(
    encoder: Encoder,
    prompts: Sequence[str],
    copies: int,
    *,
    tasks: Sequence[str | None],
    seed: int,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> tuple[npt.NDArray[np.floating], ...]:
    """Return `HeadRows.otherwise` of the prompts: x (prompts, dim) of as many copies of them.

    tasks: of each prompt, and so of its copies. cache, progress: as for `embed_prompts`.
    """
    if copies:
        progress(
            f"{copies} {'copy' if copies == 1 else 'copies'} of every prompt, written otherwise, to be fitted on too ..."
        )
    made = written_otherwise(prompts, copies, seed=seed)
    columns = columns_of(encoder)
    return tuple(
        mark_tasks(columns, embed_prompts(encoder, texts, cache=cache, progress=progress).x, tasks) for texts in made
    )
