"""This file writes the section of a report on edits: which decisions withstand, the table, and why an edit fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipr_engine.evaluation.markdown import number, table

HOLDS, FAILS, OPEN, NOTHING = "holds", "fails", "open", "changes nothing"


def shown(name: str, figure: Mapping[str, Any]) -> str:
    """Return a figure named "lost" or "raised" with its interval."""
    if name == "raised":
        return number(figure, 0, signed=True, percent=True)
    return number(figure, 3, signed=True)


def sentences_of(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how many edits and suffixes hold, which do not, and which change none of the prompts."""
    verdicts = (HOLDS, FAILS, OPEN, NOTHING)
    by = {verdict: [line["name"] for line in lines if line["verdict"] == verdict] for verdict in verdicts}
    text = f"Of {len(lines)} ways to write the test prompts otherwise the decisions withstand {len(by[HOLDS])}"
    text += f"; they fail under: {', '.join(by[FAILS])}" if by[FAILS] else "; they are shown to fail under none"
    if by[OPEN]:
        text += f"; not told by so few prompts: {', '.join(by[OPEN])}"
    if by[NOTHING]:
        text += f"; not asked, since they change none of these prompts: {', '.join(by[NOTHING])}"
    return [f"{text}."]


def render_edits(figures: Mapping[str, Any]) -> str:
    """Return the section of the report."""
    rows = []
    for line in figures["lines"]:
        first, unsupported = line["settings"][0], line["unsupported"]
        rows.append(
            [
                line["name"],
                f"{line['changed']:.0%}",
                number(first["flipped"], 1, percent=True),
                f"{line['flipped_by_kmeans']:.1%}",
                shown("lost", first["lost"]),
                shown("raised", first["raised"]),
                "-" if unsupported is None else f"{unsupported[0]:.0%} -> {unsupported[1]:.0%}",
                f"**{line['verdict']}**" if line["verdict"] == FAILS else line["verdict"],
            ]
        )
    head = [
        "",
        "prompts changed",
        "decisions flipped",
        "by k-means",
        "quality lost",
        "cost raised",
        "unsupported",
        "verdict",
    ]
    taus = [
        [
            line["name"],
            *(f"{found['flipped']['value']:.1%}; {shown('lost', found['lost'])}" for found in line["settings"][1:]),
        ]
        for line in figures["lines"]
    ]
    why = [f"- {line['name']}: {'; '.join(line['because'])}." for line in figures["lines"] if line["because"]]
    limits, share = figures["limits"], f"{figures['share']:.0%} of the best single's quality on these prompts"
    setting = f"the cheapest worth that keeps {share}"
    if not figures["share_kept"]:
        setting = f"the greatest worth, that of the highest predicted quality, since none keeps {share}"
    return (
        "## Robust to edits\n\n"
        + " ".join(figures["sentences"])
        + f" The same prompts, written otherwise: outcomes and costs are those recorded of the prompts as they are. Table: {setting}. "
        f"Limits: mean quality lost {limits['lost']:g}, mean cost raised {limits['raised']:.0%}, at that setting and at each tau. "
        "*holds*: every interval ends within them; *fails*: one lies beyond; *open*: neither; *changes nothing*: no prompt's text is "
        f"another. Unsupported: the share of prompts of support below {figures['supported']:g}; behind a suffix they "
        "count as decided as before, since `min_support` tells them.\n\n"
        + table(head, rows)
        + "\n\nDecisions flipped; quality lost, by tau:\n\n"
        + table(["", *figures["settings"][1:]], taus)
        + ("\n\n" + "\n".join(why) if why else "")
    )
