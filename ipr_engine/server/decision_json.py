"""`decision_json` writes a decision as `ipr route --json` prints it, with what a server knows; what its policy says is written once."""

from __future__ import annotations

from typing import Any

import orjson

from ipr_engine.bundle.origin import prior_of
from ipr_engine.decision.written_policy import rest_of
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.decided import Decided


def decision_dict(decided: Decided) -> dict[str, Any]:
    """Return a decision as plain JSON types, with its id, what it saves, and every exclusion."""
    found = decided.decision.to_dict()
    found["excluded"] = {**found["excluded"], **decided.asked.exclusions}
    if decided.explored:
        found |= _of_asked(decided)
    return {"id": decided.id, **found, **_of_server(decided)}


def decision_json(decided: Decided) -> bytes:
    """Return the JSON of `decision_dict`."""
    decision, asked = decided.decision, decided.asked
    own = decision.own_json() if decision.policy is asked.policy and decided.exploration is None else None
    if own is None:
        whole: bytes = orjson.dumps(decision_dict(decided))
        return whole
    rest, id, saved = rest_of_asked(asked), orjson.dumps(decided.id), orjson.dumps(decided.saved)
    return b'{"id":%b,%b,"saved_usd":%b,"assumed_tokens":%d,%b' % (id, own, saved, decided.assumed, rest)


def rest_of_asked(asked: AskedPolicy) -> bytes:
    """Return what replies say of a policy where a request keeps out nobody, and no drift is known: keys and values, and the last brace."""
    written = asked.written
    if not written:
        rest = {**rest_of(asked.policy), "excluded": {**asked.policy.exclusions, **asked.exclusions}}
        written.append(orjson.dumps(rest)[1:])
    return written[0]


def _of_server(decided: Decided) -> dict[str, Any]:
    found: dict[str, Any] = {"saved_usd": decided.saved, "assumed_tokens": decided.assumed}
    made = decided.exploration
    if made is not None:
        chosen = decided.decision.model
        found["exploration"] = {"chosen": chosen, "share": made.share, "propensity": made.propensity}
    return found


def _of_asked(decided: Decided) -> dict[str, Any]:
    """Return what a decision says of a candidate, of the one that chance drew in place of the policy's choice."""
    decision, index = decided.decision, decided.position
    result, row, usd = decision.result, decision.row, decision.usd_of(index)
    terms = decision.cost_terms_of(index, usd)
    return {
        "model": decided.model,
        "cause": decided.cause,
        "prior": prior_of(decision.bundle, decided.model),
        "quality": result.quality_at(row, index),
        "cost_usd": usd,
        "cost": result.cost_at(row, index),
        "cost_terms": None if terms is None else terms._asdict(),
        "tokens_in": decision.input_tokens(index),
        "tokens_out": result.tokens_at(row, index),
        "ranked": list(decided.ranked),
    }
