"""A `WrittenPolicy` is the JSON that every plain decision of one policy has in common: it is written once, and kept with the policy."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from ipr_engine.bundle import BundleSpec
from ipr_engine.bundle.origin import prior_of
from ipr_engine.decide.contract import CAUSE
from ipr_engine.policy.policy import Policy


class RowWords(NamedTuple):
    """A `RowWords` says what the figures of a row stand for, quoted, as C++ takes it.

    Attributes:
        names, priors: (models,). causes: those of `CAUSE`. ratios: (models,) float64 token_ratio, as bytes.
    """

    names: tuple[bytes, ...]
    priors: tuple[bytes, ...]
    causes: tuple[bytes, ...]
    ratios: bytes


class WrittenPolicy(NamedTuple):
    """A `WrittenPolicy` holds the words of its bundle, and `rest`: keys and values from "excluded" on, without braces."""

    words: RowWords
    rest: bytes

    @classmethod
    def of(cls, policy: Policy, bundle: BundleSpec) -> WrittenPolicy:
        """Return that of a policy, of the bundle that it was compiled for."""
        kept: list[WrittenPolicy] = policy.written
        if not kept:
            kept.append(cls(_words(bundle), json_bytes(rest_of(policy))[1:-1]))
        return kept[0]


def rest_of(policy: Policy) -> dict[str, Any]:
    """Return what `Decision.to_dict` says of its policy, where its request keeps out nobody, and no drift is known."""
    return {
        "excluded": dict(policy.exclusions),
        "tau": policy.tau,
        "rule": policy.rule,
        "worth": policy.worth,
        "promise": None if policy.promise is None else policy.promise.to_dict(),
        "calibration": policy.certificate.status,
        "calibration_reason": policy.certificate.reason,
        "bundle": policy.bundle_hash,
    }


def json_bytes(value: object) -> bytes:
    """Return a value as JSON in UTF-8, without blanks."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _words(bundle: BundleSpec) -> RowWords:
    return RowWords(
        tuple(json_bytes(name) for name in bundle.names),
        tuple(json_bytes(prior_of(bundle, name)) for name in bundle.names),
        tuple(json_bytes(cause) for cause in CAUSE),
        np.array([candidate.token_ratio for candidate in bundle.candidates], np.float64).tobytes(),
    )
