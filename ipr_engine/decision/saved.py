"""`saved_usd` tells what a candidate is predicted to cost less than its policy's best single one, which `best_of` finds."""

from __future__ import annotations

import math

from ipr_engine.bundle import BundleSpec
from ipr_engine.decision.decision import Decision
from ipr_engine.errors import BundleError, InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.unsupported import best_single


def best_of(policy: Policy, bundle: BundleSpec) -> int | None:
    """Return the position of the best single candidate of a policy; None where the bundle does not tell.

    Without a promise it is found anew, which may read a file: keep it as long as the policy.
    """
    if policy.promise is not None:
        return bundle.names.index(policy.promise.best)
    try:
        return bundle.names.index(best_single(bundle, policy.allowed, policy.prices))
    except (InvalidInputError, BundleError):
        return None


def saved_usd(best: int | None, decision: Decision, index: int) -> float | None:
    """Return what a candidate is predicted to cost less than the best single one on the request that was decided.

    best, index: their positions. None where the best one is not known, or could not serve this request.
    """
    if best is None or (decision.may_keep_out and decision.unable(best) is not None):
        return None
    saved = decision.usd_of(best) - decision.usd_of(index)
    return saved if math.isfinite(saved) else None
