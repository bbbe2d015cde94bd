"""A `Subject` is one way to embed prompts, as `ipr bench encoder` times it: a tier of ours, or a peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """A `Subject` is one way to embed prompts.

    Attributes:
        name: as a table shows it. ours: a tier of this library, not a peer.
        tokenize: prompts -> what `embed` takes. embed: that -> (batch, dim) float32.
        encode: prompts -> (batch, dim), by the call a user would make.
    """

    name: str
    ours: bool
    tokenize: Callable[[list[str]], Any]
    embed: Callable[[Any], Embeddings]
    encode: Callable[[list[str]], Embeddings]


@dataclass(frozen=True)
class Absent:
    """An `Absent` is a subject that cannot run here, and why."""

    name: str
    reason: str
