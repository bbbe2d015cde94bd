"""Tested points of tau's path, as a calibration map keeps them (docs/calibration.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ipr_engine.bundle.fields import Field

CERTIFIED, INSUFFICIENT = "certified", "insufficient_evidence"


@dataclass(frozen=True, kw_only=True)
class TestedTau:
    """What rule `path` runs at one tau, tested on the calibration sample: does it keep what tau promises?

    Attributes:
        tau: in [0, 1]. worth: USD per unit of quality that ran; of tau 0, where the highest predicted quality runs, 0.
        status: "certified", or "insufficient_evidence" where the test could not tell that the promise is kept.
        promised: (1 - tau) * best + tau * cheapest, in mean realised quality on the sample.
        quality: mean realised of what ran. quality_lower: lower confidence bound of its mean at 1 - risk, for this tau alone.
        cost_usd: mean expected cost of a prompt, by the op.
    """

    __test__ = False  # no class of tests, whatever its name starts with

    tau: float
    worth: float
    status: str
    promised: float
    quality: float
    quality_lower: float
    cost_usd: float


_FIELDS = tuple(TestedTau.__dataclass_fields__)


def parse_tested(field: Field) -> tuple[TestedTau, ...]:
    """The tested taus of this JSON list; BundleError where it is none, or where taus do not rise or worths rise."""
    found = []
    for item in field.list(at_least=1):
        keys = item.object(_FIELDS)
        found.append(
            TestedTau(
                tau=keys["tau"].number(at_least=0, at_most=1),
                worth=keys["worth"].number(at_least=0, at_most=1e12),
                status=keys["status"].one_of((CERTIFIED, INSUFFICIENT)),
                promised=keys["promised"].number(at_least=0, at_most=1),
                quality=keys["quality"].number(at_least=0, at_most=1),
                quality_lower=keys["quality_lower"].number(at_least=0, at_most=1),
                cost_usd=keys["cost_usd"].number(at_least=0),
            )
        )
    if (np.diff([one.tau for one in found]) <= 0).any():
        field.fail("taus that rise")
    if (np.diff([one.worth for one in found if one.tau > 0]) > 0).any():
        field.fail("worth that never rises with tau")
    return tuple(found)
