"""`controls_of` finds what one request of a server says of its own decision, and takes it out of the body, which goes upstream."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ipr_engine._C import has_header
from ipr_engine.request.controls import EVERY_CONTROL, EXPLAIN, HEADER, NO_CONTROLS, Controls, read_controls
from ipr_engine.request.wrong_control import WrongControlError
from ipr_engine.server.exchange import Headers

_HEADER = HEADER.encode()
TAU = frozenset({"tau"})
"""The control that no upstream has a field for; those of other names may be fields of a request that goes on."""
EVERY = frozenset(EVERY_CONTROL)


def has_control(headers: Headers) -> bool:
    """Return whether a header is that of a control, known or not."""
    return has_header(headers, (), _HEADER)


def controls_of(
    headers: Headers,
    body: dict[str, Any],
    permitted: Collection[str] | None = None,
    own: Sequence[str] = (),
    bare: frozenset[str] = TAU,
) -> Controls:
    """Return the controls of a request.

    Args:
        headers: of the request, names in lower case; they tell some.
        body: `ipr` and `metadata.ipr` are removed, and of its own fields those of `own`.
        permitted: options of a policy and of a prompt that may be set; None: all.
        bare: controls that are refused where they stand beside the request's fields, since nobody would heed them.
    Raises:
        WrongControlError: as `read_controls`.
    """
    said = []
    if has_control(headers):
        said = [(name.decode("latin-1"), text.decode("latin-1")) for name, text in headers if name.startswith(_HEADER)]
    objects = _objects(body, own)
    for name, value in body.items():
        if name in bare and value is not None:
            raise WrongControlError(name, f'is a control; put it under ipr: {{"ipr": {{"{name}": ...}}}}')
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
