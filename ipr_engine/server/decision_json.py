"""`decision_json` writes a decision as `ipr route --json` prints it, with what a server knows; what its policy says is written once."""

from __future__ import annotations

from typing import Any

import orjson

from ipr_engine.server.decided import Decided

OF_POLICY = ("tau", "rule", "worth", "promise", "bundle", "excluded", "calibration", "calibration_reason")
"""Keys that are the policy's own where a request keeps out nobody and moves no cost."""


def decision_dict(decided: Decided) -> dict[str, Any]:
    """Return a decision as plain JSON types, with its id, what it saves, and every exclusion."""
    found = decided.decision.to_dict()
    found["excluded"] = {**found["excluded"], **decided.asked.exclusions}
    return {"id": decided.id, **found, **_of_server(decided)}


def decision_json(decided: Decided) -> bytes:
    """Return the JSON of `decision_dict`."""
    decision, asked = decided.decision, decided.asked
    plain = (
        decision.policy is asked.policy
        and not decision.may_keep_out
        and not decision.inputs.moved
        and not decision.by_support
        and asked.policy.drift.evidence is None
    )
    if not plain:
        whole: bytes = orjson.dumps(decision_dict(decided))
        return whole
    written = asked.written
    if not written:
        found = decision_dict(decided)
        written.append(orjson.dumps({name: found[name] for name in OF_POLICY})[1:])
    result, row, index = decision.result, decision.row, decision.index
    usd, gap, support = decision.usd_of(index), result.gap_at(row), decision.support
    terms = decision.cost_terms_of(index, usd)
    own = {
        "id": decided.id,
        "model": decision.model,
        "status": "ok",
        "reason": None,
        "cause": decision.cause,
        "prior": decision.prior,
        "quality": result.quality_at(row, index),
        "cost_usd": usd,
        "cost": result.cost_at(row, index),
        "cost_terms": None if terms is None else terms._asdict(),
        "tokens_in": decision.input_tokens(index),
        "tokens_out": result.tokens_at(row, index),
        "threshold": result.threshold_at(row),
        "gap": gap,  # orjson writes what is not finite as null, as `to_dict` has it
        "support": support,
        "billed_tokens": decision.billed_tokens,
        "truncated": decision.truncated,
        "escalated": decision.escalated,
        "ranked": decision.ranked,
        **_of_server(decided),
    }
    made: bytes = orjson.dumps(own)[:-1] + b"," + written[0]
    return made


def _of_server(decided: Decided) -> dict[str, Any]:
    return {"saved_usd": decided.saved, "assumed_tokens": decided.assumed}
