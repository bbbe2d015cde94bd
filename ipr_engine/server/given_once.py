"""`require_once` refuses a body that gives a control twice: whoever reads JSON takes the last of two, and nobody says so."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ipr_engine.server.refused import RefusedError

_KEY = re.compile(r'"ipr"\s*:\s*')
_MARK = b'"ipr"'  # in a text its quotes are escaped
_ESCAPED = re.compile(rb"\\u00(?:6[1459dD]|7[024])")  # a letter of "ipr" or "metadata": a name may be written so, too
_PLACES = (("ipr",), ("metadata", "ipr"))


class _Object(dict[str, Any]):
    """An `_Object` of JSON knows which names stand in it twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.twice = {name for name, _ in pairs if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=str, parse_float=str)  # names alone are looked at


def require_once(body: bytes, found: Mapping[str, Any]) -> None:
    """Refuse what is given twice, where a body holds controls under `ipr` or `metadata.ipr`.

    found: the body, read.

    Raises:
        RefusedError: 400, a control stands twice, or what holds controls does.
    """
    escaped = _ESCAPED.search(body) is not None and (_holds(found) or _holds(found.get("metadata")))
    if escaped or _MARK in body:
        try:
            _look(body, found, escaped)
        except RecursionError:  # so deep that it is no control
            return


def _look(body: bytes, found: Mapping[str, Any], escaped: bool) -> None:
    text = body.decode()
    values = [one.end() for one in _KEY.finditer(text)]
    metadata = found.get("metadata")
    held = [place for place, within in zip(_PLACES, (found, metadata), strict=True) if _holds(within)]
    if len(values) == 1 == len(held) and not escaped:  # the usual case: the object alone is read again
        _require(_DECODER.raw_decode(text, values[0])[0], held[0])
        return
    whole = _DECODER.decode(text)
    for name in whole.twice & {"ipr", "metadata"}:
        _refuse(name)
    for place in _PLACES:
        within = whole if len(place) == 1 else whole.get("metadata")
        if isinstance(within, _Object):
            if "ipr" in within.twice:
                _refuse(".".join(place))
            _require(within.get("ipr"), place)


def _holds(within: object) -> bool:
    return isinstance(within, Mapping) and "ipr" in within


def _require(value: object, place: tuple[str, ...]) -> None:
    if isinstance(value, _Object):
        for name in value.twice:
            _refuse(".".join((*place, name[:64])))
        for name, within in value.items():
            _require(within, (*place, name[:64]))


def _refuse(place: str) -> None:
    raise RefusedError(400, f"{place}: is given twice; give it once", place, why="a control is given twice")
