"""`controls_of` finds what one request of a server says of its own decision, and takes it out of the body, which goes upstream."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ipr_engine.request.controls import EXPLAIN, HEADER, NO_CONTROLS, Controls, read_controls
from ipr_engine.server.exchange import Exchange

_HEADER = HEADER.encode()


def controls_of(
    exchange: Exchange,
    body: dict[str, Any],
    permitted: Collection[str] | None = None,
    own: Sequence[str] = (),
) -> Controls:
    """Return the controls of a request.

    Args:
        exchange: whose headers tell some.
        body: `ipr` and `metadata.ipr` are removed, and of its own fields those of `own`.
        permitted: options of a policy and of a prompt that may be set; None: all.
    Raises:
        WrongControlError: as `read_controls`.
    """
    said = []
    if _HEADER in b"\n".join(exchange.named):
        said = [
            (name.decode("latin-1"), text.decode("latin-1"))
            for name, text in exchange.headers
            if name.startswith(_HEADER)
        ]
    objects = _objects(body, own)
    if not said and not objects:
        return NO_CONTROLS
    if permitted is None:
        return read_controls(said, objects)
    return read_controls(said, objects, (*permitted, EXPLAIN))


def _objects(body: dict[str, Any], own: Sequence[str]) -> list[tuple[str, object]]:
    """Return where the body holds controls, and them."""
    found: list[tuple[str, object]] = []
    if own:
        fields = {name: body.pop(name) for name in own if name in body}
        if fields:
            found.append(("", fields))
    if "ipr" in body:
        found.append(("ipr", body.pop("ipr")))
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and "ipr" in metadata:
        found.append(("metadata.ipr", metadata["ipr"]))
        rest = {name: value for name, value in metadata.items() if name != "ipr"}
        if rest:
            body["metadata"] = rest
        else:
            del body["metadata"]
    return found
