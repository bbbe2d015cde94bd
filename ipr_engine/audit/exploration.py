"""An `Explorer` has a share of requests asked of a candidate that chance draws, so that a log tells what other policies would have got.

The decision stays the policy's, and is replayed as such; who is asked in its place is an `Exploration` beside it in the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import number
from ipr_engine.audit.record_fields import require
from ipr_engine.errors import InvalidInputError

_KEYS = {"model", "share", "propensity", "among"}
_ROUNDED = 1e-12  # of a propensity that somebody else's division rounded


class NamedCandidates(Protocol):
    """A `NamedCandidates` has the names of a bundle's candidates, in its order."""

    @property
    def names(self) -> tuple[str, ...]: ...


class ExplorableRow(Protocol):
    """An `ExplorableRow` is a decision as far as a draw needs it: the choice, who could be chosen, and whether a fallback answered."""

    @property
    def index(self) -> int: ...

    @property
    def degraded(self) -> str | None: ...

    @property
    def allowed(self) -> npt.NDArray[np.bool_]: ...

    @property
    def bundle(self) -> NamedCandidates: ...


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """An `Exploration` says which candidate is asked where chance may choose another than the policy, and with what chance it was this one.

    Attributes:
        model, index: who is asked, its name and position; the policy's choice, too, where chance kept or drew it.
        share: with this chance the candidate is drawn, else it is the policy's choice.
        propensity: the chance with which this candidate was asked: share / eligible, and 1 - share more of the policy's choice.
        among: positions of the eligible candidates, those that the policy and the request allow; the policy's choice is one.
    """

    model: str
    index: int
    share: float
    propensity: float
    among: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that `parse_exploration` reads."""
        return {"model": self.model, "share": self.share, "propensity": self.propensity, "among": list(self.among)}


def parse_exploration(document: Any, names: Sequence[str], choice: int) -> Exploration:
    """Return the exploration of a line; ValueError for what no recorder writes.

    Args:
        names: the record's candidates. choice: the position of the policy's.
    """
    require(isinstance(document, Mapping) and document.keys() == _KEYS, "exploration", document)
    model, share, propensity, among = (document[name] for name in ("model", "share", "propensity", "among"))
    require(isinstance(model, str) and model in names, "exploration.model", model)
    known = isinstance(among, list) and all(type(m) is int and 0 <= m < len(names) for m in among)
    require(known and among == sorted(set(among)), "exploration.among", among)
    index = names.index(model)
    require(index in among and choice in among, "exploration.among", among)
    require(type(share) is float and 0.0 < share < 1.0, "exploration.share", share)
    made = _propensity(share, len(among), index == choice)
    known = type(propensity) is float and propensity <= 1.0
    require(known and abs(propensity - made) < _ROUNDED, "exploration.propensity", propensity)
    return Exploration(model=model, index=index, share=share, propensity=propensity, among=tuple(among))


class ExplorationDraw(NamedTuple):
    """An `ExplorationDraw` is what chance said before a request was decided: the same decision gives the same `Exploration`, whoever asks.

    Attributes:
        share: of requests whose candidate is drawn. explores: whether this one's is.
        place: in [0, 1), who of the eligible candidates it is.
    """

    share: float
    explores: bool
    place: float

    def of(self, row: ExplorableRow) -> Exploration | None:
        """Return who is asked; None where nothing was decided, or a fallback answered past the deadline."""
        choice = row.index
        if choice < 0 or row.degraded is not None:
            return None
        among = tuple(np.flatnonzero(row.allowed).tolist())
        if choice not in among:  # nobody else could be compared with it
            return None
        index = among[int(self.place * len(among))] if self.explores else choice
        return Exploration(
            model=row.bundle.names[index],
            index=index,
            share=self.share,
            propensity=_propensity(self.share, len(among), index == choice),
            among=among,
        )


class Explorer:
    """An `Explorer` draws for each request of a server, or of a program that serves and records (docs/from-production.md).

        >>> explorer = Explorer(0.05)
        >>> with BatchingEngine.load() as serving, serving.recorder("log.jsonl") as recorder:
        ...     draw = explorer.draw()
        ...     decision = recorder.route("Explain quicksort", tau=0.1, id="request 1", draw=draw)
        ...     asked = draw.of(decision)      # ask asked.model, not decision.model

    Attributes:
        share: of requests whose candidate is drawn, uniformly from the eligible ones.
    """

    def __init__(self, share: float, chance: Callable[[], float] | None = None) -> None:
        """Keep the share.

        Args:
            chance: gives numbers in [0, 1), two a draw: `random.Random(seed).random`, say; None for the system's own source.
        Raises:
            InvalidInputError: the share is not between 0 and 1.
        """
        if not 0.0 < number("share", share) < 1.0:
            raise InvalidInputError(
                f"share: expected a number between 0 and 1, got {share!r}; explore nothing without one"
            )
        self.share = float(share)
        self._chance = SystemRandom().random if chance is None else chance

    def draw(self) -> ExplorationDraw:
        """Draw for one request, before it is decided."""
        return ExplorationDraw(self.share, self._chance() < self.share, self._chance())


def _propensity(share: float, eligible: int, is_choice: bool) -> float:
    return (1.0 - share if is_choice else 0.0) + share / eligible
