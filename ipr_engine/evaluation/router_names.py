"""`require_free_names` refuses names of other routers that another line of the tables has or may have."""

from __future__ import annotations

from collections.abc import Iterable

from ipr_engine._validate import shown
from ipr_engine.errors import InvalidInputError

OWN = "router, "  # names of the router's own lines begin with it; which rules have one depends on the bundle
LINES = frozenset(
    [
        *(f"paper's {rule}, mean cost" for rule in ("minmax", "max", "fixed")),
        *(f"{estimator}, {sweep}" for estimator in ("kNN", "k-means", "ridge") for sweep in ("worth", "minmax")),
        "hull of singles",
        "random mix",
        "best single",
        "always cheapest",
        "hindsight hull",
        "oracle",
    ]
)


def require_free_names(names: Iterable[str]) -> None:
    """Refuse what cannot be the name of another router.

    Raises:
        InvalidInputError: it would break a table of the report, or is the name of one of its lines.
    """
    every = list(names)
    for name in every:
        if not name or "|" in name or not name.isprintable():  # it stands in a table of the report
            raise InvalidInputError(f"--router: expected a name of printable characters without |, got {shown(name)}")
        if name in LINES or name.startswith(OWN) or every.count(name) > 1:
            raise InvalidInputError(f"--router: {name!r} is the name of another line of the table; name it otherwise")
