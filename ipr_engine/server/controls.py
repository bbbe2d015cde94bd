"""`read_controls` reads what one request asks of its decision: headers `x-ipr-*`, `metadata.ipr` or `ipr` of its body."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ipr_engine.policy.policy_spec import ABOUT
from ipr_engine.policy.rules import TARGETS
from ipr_engine.request.route_request import REQUEST_OPTIONS, RequestOptions
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.server_config import CONTROLS

LEVEL = frozenset({"tau", *TARGETS})
"""Options of which one says how much quality is asked for."""
MASKS = frozenset({"allowed", "exclude", "family", "requires", "max_latency_ms"})
"""Options that say who may answer: those of server, model, tenant and request all hold."""
_PREFIX = b"x-ipr-"
_BY_HEADER = {name.replace("_", "-").encode(): name for name in CONTROLS if ABOUT[name].form not in ("weights", None)}
_OF_REQUEST = frozenset(REQUEST_OPTIONS)
_EXPLAIN = "explain"


@dataclass(frozen=True, slots=True)
class Controls:
    """A `Controls` holds what one request asks of its decision.

    Attributes:
        policy: options of a policy. given: what is given of the prompt, as `RequestOptions`.
        explain: whether every candidate is told of in the reply of a decision endpoint.
    """

    policy: Mapping[str, Any] = field(default_factory=dict)
    given: RequestOptions = field(default_factory=RequestOptions)
    explain: bool = False


NO_CONTROLS = Controls()


def read_controls(
    headers: Iterable[tuple[bytes, bytes]], body: dict[str, Any], permitted: Collection[str] | None = None
) -> Controls:
    """Read the controls of a request, and take them out of its body, which then goes upstream.

    Args:
        headers: names in lower case, as ASGI has them.
        body: `ipr`, or `metadata.ipr` (an object, or its JSON as a string), is removed.
        permitted: options of a policy that may be set; None: all.
    Raises:
        RefusedError: a control is unknown, not permitted, given twice or not of its type.
    """
    asked: dict[str, Any] = {}
    for header, said in headers:
        if header.startswith(_PREFIX):
            _header(asked, header[len(_PREFIX) :], said)
    for where, controls in _of_body(body):
        for name, value in controls.items():
            if name in asked:
                raise RefusedError(400, f"{where}.{name}: is given twice; give each control once", name)
            if name not in CONTROLS and name not in _OF_REQUEST and name != _EXPLAIN:
                known = ", ".join((*CONTROLS, *REQUEST_OPTIONS, _EXPLAIN))
                raise RefusedError(400, f"{where}: {name[:64]!r} is no control; known: {known}", name[:64])
            asked[name] = value
    if not asked:
        return NO_CONTROLS
    explain = asked.pop(_EXPLAIN, False)
    if not isinstance(explain, bool):
        raise RefusedError(400, "explain: expected true or false", _EXPLAIN)
    given: Any = {name: asked.pop(name) for name in REQUEST_OPTIONS if name in asked}
    for name in asked:
        if permitted is not None and name not in permitted:
            may = ", ".join(permitted) or "none"
            raise RefusedError(403, f"{name}: this key may not set it; it may set: {may}", name)
    levels = LEVEL.intersection(asked)
    if len(levels) > 1:
        raise RefusedError(400, f"{' and '.join(sorted(levels))}: give one of them", sorted(levels)[0])
    return Controls({name: value for name, value in asked.items() if value is not None}, given, explain)


def _header(asked: dict[str, Any], name: bytes, value: bytes) -> None:
    """Read one header `x-ipr-<name>`."""
    said = value.decode("latin-1").strip()
    if name == _EXPLAIN.encode():
        asked[_EXPLAIN] = _switch(_EXPLAIN, said)
        return
    option = _BY_HEADER.get(name)
    shown = name.decode("latin-1")[:64]
    if option is None:
        known = ", ".join(f"x-ipr-{known.decode()}" for known in (*_BY_HEADER, b"explain"))
        raise RefusedError(400, f"x-ipr-{shown}: is no control; known: {known}", f"x-ipr-{shown}")
    if option in asked:
        raise RefusedError(400, f"x-ipr-{shown}: is given twice; give each control once", f"x-ipr-{shown}")
    form = ABOUT[option].form
    if form in ("number", "number or infinity"):
        try:
            asked[option] = float(said)
        except ValueError:
            raise RefusedError(400, f"x-ipr-{shown}: expected a number, got {said[:64]!r}", f"x-ipr-{shown}") from None
    elif form in ("candidates", "names"):
        asked[option] = [part.strip() for part in said.split(",") if part.strip()]
    elif form == "flag":
        asked[option] = _switch(f"x-ipr-{shown}", said)
    else:
        asked[option] = said


def _switch(name: str, said: str) -> bool:
    if said.lower() not in ("true", "false", "1", "0"):
        raise RefusedError(400, f"{name}: expected true or false, got {said[:64]!r}", name)
    return said.lower() in ("true", "1")


def _of_body(body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return where the body holds controls, and them."""
    found = []
    if "ipr" in body:
        found.append(("ipr", _object("ipr", body.pop("ipr"))))
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and "ipr" in metadata:
        rest = {name: value for name, value in metadata.items() if name != "ipr"}
        if rest:
            body["metadata"] = rest
        else:
            del body["metadata"]
        found.append(("metadata.ipr", _object("metadata.ipr", metadata["ipr"])))
    return found


def _object(where: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):  # OpenAI's metadata holds strings alone
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise RefusedError(400, f'{where}: expected an object, or its JSON such as {{"tau": 0.2}}', where) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusedError(
            400, f"{where}: expected an object such as {{'tau': 0.2}}, got {type(value).__name__}", where
        )
    return value
