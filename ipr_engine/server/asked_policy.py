"""An `AskedPolicy` is what one set of options means on one bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ipr_engine._C import PlainPolicy
from ipr_engine.policy.policy import Policy


@dataclass(frozen=True, slots=True)
class AskedPolicy:
    """An `AskedPolicy` is a policy as a request of a server means it.

    Attributes:
        policy: compiled. exclusions: candidate -> why it may not answer, whoever said so.
        best: position of the policy's best single candidate, which savings are counted against; None where it is not known.
        masked: candidates that are left out since their upstream cannot speak the request's format.
        written: what its replies say of it, once one was written.
        plain: how it decides plain requests, once one came; None in it: it does not.
    """

    policy: Policy
    exclusions: Mapping[str, str]
    best: int | None
    masked: tuple[str, ...] = ()
    written: list[bytes] = field(default_factory=list, compare=False)
    plain: list[PlainPolicy | None] = field(default_factory=list, compare=False)
