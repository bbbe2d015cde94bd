"""`best_position` finds the best single candidate of a policy, which savings are counted against."""

from __future__ import annotations

from ipr_engine.bundle import BundleSpec
from ipr_engine.errors import BundleError, InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.unsupported import best_single


def best_position(policy: Policy, bundle: BundleSpec) -> int | None:
    """Return the position of the best single candidate of a policy; None where the bundle does not tell.

    Without a promise it is found anew, which may read a file: keep it as long as the policy.
    """
    if policy.promise is not None:
        return bundle.names.index(policy.promise.best)
    try:
        return bundle.names.index(best_single(bundle, policy.allowed, policy.prices))
    except (InvalidInputError, BundleError):
        return None
