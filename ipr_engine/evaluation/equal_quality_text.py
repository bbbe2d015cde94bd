"""This file says what cost at equal quality came to: the report's first table, and sentences that can be quoted as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipr_engine.bundle.origin import SHOWN_BLIND
from ipr_engine.evaluation.equal_quality import COIN, HULL, SHARES, lines_at
from ipr_engine.evaluation.markdown import digits_off, number, table

QUOTED = 0.98
# What the router is found to be beside another contender. UNEQUAL: who costs less keeps less, or missed the share.
CHEAPER, DEARER, BETTER, WORSE, UNEQUAL, UNTOLD = (
    "cheaper", "dearer", "better", "worse", "not at equal quality", "not told apart",
)  # fmt: skip


def quotable(figures: Mapping[str, Any]) -> list[str]:
    """Return what a reader may quote: the router's cost at QUOTED, then that of a mix of single models; or why neither can be said.

    Args:
        figures: of `summarise`; with "seen" (`evaluate_engine`) the first sentence says that the router was not fitted on the prompts.
    """
    section = figures["equal_quality"]
    lines, reason = lines_at(section, QUOTED), section["reason"]
    own = lines.get(section["router"])
    if reason is None and (own is None or not (whole(own["cost"]) and whole(own["kept"]))):
        reason = "its interval is not defined on these prompts"
    if reason is not None:
        return [f"No statement about cost at equal quality can be made: {reason}."]
    assert own is not None
    unseen = "(whether it was fitted on some of them is not known)"
    if "cross_fit" in figures:
        unseen = "by heads fitted anew without each of them: it is the recipe that is judged, not this very bundle"
    elif figures.get("seen", {"prompts": None})["prompts"] is not None:
        unseen = "it was not fitted on"
    blind = len(figures["constant"]) == len(figures["candidates"])
    return [_of_router(section, own, unseen), *_of_mixes(section, own, lines, blind)]


def _of_router(section: Mapping[str, Any], own: Mapping[str, Any], unseen: str) -> str:
    """Say what the router costs, on which prompts, and whether it kept the share. unseen: what is known of its fit and them."""
    best, cost, kept, share = section["best"], percent(own["cost"]), percent(own["kept"]), f"{100 * QUOTED:g} %"
    on = f"measured on {section['prompts']:,} prompts {unseen}"
    asked, paid = (
        f"Asked for {share} of the quality of {best}, this router",
        f"costs {cost} of always using {best}, {on}.",
    )
    if own["kept"]["high"] < QUOTED:
        return f"{asked} fell short: it kept {kept}, and {paid}"
    if own["cost"]["high"] >= 1:
        return f"{asked} is not shown to save anything: it kept {kept}, and {paid}"
    return f"{asked} kept {kept} and {paid}"


def _of_mixes(
    section: Mapping[str, Any], own: Mapping[str, Any], lines: Mapping[str, Mapping[str, Any]], blind: bool
) -> list[str]:
    """Hold the router against the hull of single models, and against a coin where it is not shown to be cheaper."""
    best, cheapest = section["best"], section["cheapest"]
    said = []
    if blind:
        said.append(
            f"No head of this router {SHOWN_BLIND}. So nothing can be said of what looking at the prompt saves."
        )
    hull, coin = lines.get(HULL), lines.get(COIN)
    if hull is not None:
        said.append(f"A mix of single models chosen without looking at prompts {_against(own, hull, best, blind)}.")
    if coin is not None and told(own, coin) != CHEAPER:
        said.append(f"A coin between {best} and {cheapest} {_against(own, coin, best, blind)}.")
    return said


def whole(estimate: Mapping[str, Any]) -> bool:
    """Whether an estimate has an interval that is of every draw: that of the others alone says less than 95 %."""
    return estimate["low"] is not None and estimate["defined"] == 1


def told(own: Mapping[str, Any], line: Mapping[str, Any]) -> str:
    """Say whether the router (its line own) is told apart from a contender, by the intervals of cost and of quality kept.

    Costs are compared by their difference, which has a value where one of them is 0, too.
    """
    cost, kept = line["router_cost_minus_this"], line["router_kept_minus_this"]
    if not (whole(cost) and whole(kept)):
        return UNTOLD
    less_cost, more_cost = cost["high"] < 0, cost["low"] > 0
    # Who is shown to have missed the share is not at equal quality with who is not, and saves nothing at that quality.
    short, other_short = (one["kept"]["high"] < one["share"] for one in (own, line))
    less_quality = kept["high"] < 0 or (short and not other_short)
    more_quality = kept["low"] > 0 or (other_short and not short)
    if less_cost:
        return UNEQUAL if less_quality or short else CHEAPER
    if more_cost:
        return UNEQUAL if more_quality or other_short else DEARER
    if less_quality == more_quality:
        return UNTOLD
    return WORSE if less_quality else BETTER


def _against(own: Mapping[str, Any], line: Mapping[str, Any], best: str, blind: bool) -> str:
    """Say what a contender costs, and what that says of the router."""
    kept, verdict = percent(line["kept"]), told(own, line)
    costs, looking = f"costs {percent(line['cost'])}", "this router" if blind else "looking at the prompt"
    cost, ratio = line["router_cost_minus_this"], line["router_cost_over_this"]
    if not whole(cost):
        return (
            f"{costs}; how this router's cost compares is not defined on these prompts, and no further saving is shown"
        )
    further, of_best = _less(cost, 0.0), f" of what {best} costs"
    own_costs = (
        f"costs less by {percent(further)}{of_best}" if cost["value"] < 0 else f"costs more by {percent(cost)}{of_best}"
    )
    if whole(ratio):
        own_costs = f"costs {number(ratio, digits_off(ratio, 1.0, least=2))} times that"
        further, of_best = _less(ratio, 1.0), ""
    if verdict == CHEAPER:
        return f"{costs}, so {looking} saves a further {percent(further)}{of_best}"
    if verdict == DEARER:
        return f"{costs}; this router {own_costs}, so {looking} saves nothing here"
    if verdict == UNEQUAL:
        return f"{costs} and keeps {kept} of the quality; this router {own_costs}, but not at equal quality"
    if verdict in (BETTER, WORSE):
        than = "less" if verdict == BETTER else "more"
        return (
            f"{costs} and keeps {kept} of the quality, {than} than this router, which {own_costs}: no saving is shown"
        )
    return f"{costs}; this router {own_costs}: the two are not told apart, and no further saving is shown"


def _less(estimate: Mapping[str, Any], of: float) -> dict[str, float]:
    """Return of - estimate."""
    return {"value": of - estimate["value"], "low": of - estimate["high"], "high": of - estimate["low"]}


def percent(estimate: Mapping[str, Any]) -> str:
    """Return "42 % [38, 47]"; with a digit more below 10 % and near 100 %, where whole per cents would say little."""
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    digits = 1 if abs(low) < 10 or high > 95 else 0
    shown = [f"{round(part, digits) + 0.0:.{digits}f}" for part in (value, low, high)]  # + 0.0: no "-0.0"
    return f"{shown[0]} % [{shown[1]}, {shown[2]}]"


def render_equal_quality(section: Mapping[str, Any], validation: str) -> str:
    """Return the section of the report. validation: on which prompts settings were chosen."""
    title, reason = "## Cost at equal quality\n\n", section["reason"]
    if reason is not None:
        title += f"**Nothing can be said of it here**: {reason}.\n\n"
    if not section["contenders"]:
        return title.rstrip()
    shares = section["contenders"][0]["shares"]  # the router's
    rows = [
        [
            f"**{contender['name']}**" if contender["kind"] == "router" else contender["name"],
            *(cell for own, line in zip(shares, contender["shares"], strict=True) for cell in _cells(own, line)),
        ]
        for contender in section["contenders"]
    ]
    head = [
        name for share in SHARES for name in (f"at {share:.0%}: cost; quality kept", "the router's cost / this one's")
    ]
    return (
        f"{title}In shares of always using `{section['best']}`, the best single candidate: what is paid, and the quality kept, "
        f"where 99, 98 or 95 % of its quality is asked for; {section['prompts']} prompts. Each setting is the cheapest that keeps the "
        f"share on the {validation}; it is chosen anew in every resample, so intervals hold the luck of the choice. Rule `path` is "
        f"asked by tau alone. The ratio is of `{section['router']}`; its verdict is that of the paired difference of costs, and heeds the "
        f"quality kept: `{UNEQUAL}` where who costs less keeps less, or missed the share.\n\n"
        + table(["", *head], rows)
    )


def _cells(own: Mapping[str, Any], line: Mapping[str, Any]) -> tuple[str, str]:
    ratio = line["router_cost_over_this"]
    paid = f"{number(line['cost'], 1, percent=True)}; {number(line['kept'], 1, percent=True)}"
    return paid, "" if ratio is None else f"{number(ratio, digits_off(ratio, 1.0, least=2))}; {told(own, line)}"
