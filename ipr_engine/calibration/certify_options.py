"""What `calibrate` is asked: of which candidates, with which promises and tests, and how disjointness is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ipr_engine.audit.owner_key import Key
from ipr_engine.bundle.calibration import TESTS
from ipr_engine.calibration.promises import SHARES, TAUS
from ipr_engine.errors import InvalidInputError

RISK = 0.1
POINTS = 40  # quality levels of the path


@dataclass(frozen=True, kw_only=True)
class CandidateSet:
    """The candidates that a map is of, and their names in the outcomes.

    Attributes:
        candidates, family: the set, by name or as a family; by default every candidate. Rows that lack one are left out.
        sources: name in the bundle -> name in the outcomes, where they differ; one for all, or {source: name}.
    """

    candidates: Sequence[str] | None = None
    family: str | None = None
    sources: Mapping[str, Mapping[str, str] | str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CertifyOptions:
    """The promises that are tested, and how.

    Attributes:
        risk: in (0, 0.5], the chance that a certified knot breaks its promise: of each knot, or, if `simultaneous`, of any; the same
            of tested taus, among themselves.
        test: one of bounds.TESTS.
        taus, shares: the promises (promises.py); 0 and 1 are always among the taus, 1 among the shares.
        points: quality levels of the path, hence its points at most, besides the ends.
        seed: of the order in which prompts are tested. Fix it before you look: a seed tried until it certifies is no evidence.
    Raises:
        InvalidInputError: a value is out of range.
    """

    risk: float = RISK
    simultaneous: bool = False
    test: str = "target"
    taus: Sequence[float] = TAUS
    shares: Sequence[float] = SHARES
    points: int = POINTS
    seed: int = 0

    def __post_init__(self) -> None:
        risk, points, seed = self.risk, self.points, self.seed
        if not isinstance(risk, (int, float)) or not 0 < risk <= 0.5:
            raise InvalidInputError(f"risk: expected a number above 0 and at most 0.5, got {risk!r}")
        if self.test not in TESTS:
            raise InvalidInputError(f"test: expected one of {', '.join(TESTS)}, got {self.test!r}")
        outside = [level for level in [*self.taus, *self.shares] if not 0 <= level <= 1]
        if outside:
            raise InvalidInputError(f"taus, shares: expected values in [0, 1], got {outside[0]!r}")
        if type(points) is not int or points < 1 or type(seed) is not int or seed < 0:
            raise InvalidInputError(f"points, seed: expected an int >= 1 and an int >= 0, got {points!r} and {seed!r}")


@dataclass(frozen=True, kw_only=True)
class Disjointness:
    """How it is known that no calibration prompt is among those that heads or path were fitted on.

    Attributes:
        drop_overlap: leave out of the sample what is among the fitting or the path's prompts, instead of refusing.
        stated: accept a bundle without prompt hashes; the map then says that disjointness was stated, not checked.
        key: the owner's, under which the bundle hashed its fitting prompts, a file or 32 bytes; several where two tiers have one
            each. None reads ROOT/owner.key beside the bundle.
    """

    drop_overlap: bool = False
    stated: bool = False
    key: Key | Sequence[Key] | None = None


EVERY_CANDIDATE, DEFAULTS, CHECKED = CandidateSet(), CertifyOptions(), Disjointness()
