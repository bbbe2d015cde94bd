"""`query_of` reads what the URL of a request asks for: of decisions the format of those who may answer, and whether they count."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl

from ipr_engine.server.exchange import Exchange
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.request_formats import CHAT, FORMATS, MESSAGES, RESPONSES, RequestFormat

SHORT = MappingProxyType({"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES})
"""What clients call formats; the names of upstreams' formats are known, too."""
_SWITCHES = MappingProxyType({"true": True, "false": False})


class AskedQuery(NamedTuple):
    """An `AskedQuery` is what a URL asks for.

    Attributes:
        form: the format that who is chosen must speak; None: any. trial: whether the decision is left out of what is counted.
    """

    form: RequestFormat | None = None
    trial: bool = False


NOTHING = AskedQuery()


def query_of(exchange: Exchange, known: Collection[str] = ("format", "trial")) -> AskedQuery:
    """Return what the URL of a request asks for.

    Raises:
        RefusedError: a parameter is not known, or is wrong.
    """
    if not exchange.query:
        return NOTHING
    found, seen = NOTHING, set[str]()
    for name, value in parse_qsl(exchange.query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            wrong = f"query: expected {' or '.join(known)} alone" if known else "query: expected none"
            raise RefusedError(400, f"{wrong}, got {name[:64]!r}", name[:64], why=wrong)
        if name in seen:
            raise RefusedError(400, f"{name}: is given twice; give it once", name)
        seen.add(name)
        if name == "format":
            form = SHORT.get(value) or FORMATS.get(value)
            if form is None:
                wrong = f"format: expected one of {', '.join(SHORT)}"
                raise RefusedError(400, f"{wrong}, got {value[:64]!r}", name, why=wrong)
            found = found._replace(form=form)
        elif value not in _SWITCHES:
            wrong = "trial: expected true or false"
            raise RefusedError(400, f"{wrong}, got {value[:64]!r}", name, why=wrong)
        else:
            found = found._replace(trial=_SWITCHES[value])
    return found
