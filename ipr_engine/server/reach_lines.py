"""`reach_lines` tells at the start whom each tenant's requests can reach in each format, and warns where that is nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ipr_engine.server.request_formats import FORMATS
from ipr_engine.server.server_config import ServerConfig
from ipr_engine.server.tenants import ANYBODY

MOST_NAMED = 5
"""Tenants that one line names; it counts the rest."""


def reach_lines(
    config: ServerConfig, open_to: Mapping[tuple[str, str], Sequence[str]], spoken: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return a line for each model and those tenants whose requests reach as many.

    Args:
        open_to: (tenant, model) -> candidates that their policies leave. spoken: candidate -> formats of its upstream.
    """
    asking = [tenant.name for tenant in config.tenants] or [ANYBODY.name]
    offered = [form for form in FORMATS.values() if any(form.name in formats for formats in spoken.values())]
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for model in config.models:
        for tenant in asking:
            names = open_to[tenant, model]
            counts = tuple(sum(form.name in spoken.get(name, ()) for name in names) for form in offered)
            alike.setdefault((model, counts), []).append(tenant)
    lines = []
    every = tuple(sum(form.name in formats for formats in spoken.values()) for form in offered)
    for (model, counts), tenants in alike.items():
        if not config.tenants and counts == every:  # nobody is kept out
            continue
        who = f"model {model}" if not config.tenants else f"{_named(tenants)}, model {model}"
        found = ", ".join(f"{form.path} {count}" for form, count in zip(offered, counts, strict=True))
        lines.append(f"{who}: candidates by format: {found}")
        nobody = [form.path for form, count in zip(offered, counts, strict=True) if not count]
        if nobody:
            lines.append(f"warning: {who}: nobody is left at {' and '.join(nobody)}, and each such request is refused")
    return lines


def _named(tenants: Sequence[str]) -> str:
    rest = f" and {len(tenants) - MOST_NAMED} more" if len(tenants) > MOST_NAMED else ""
    return f"tenant{'s' if len(tenants) > 1 else ''} {', '.join(tenants[:MOST_NAMED])}{rest}"
