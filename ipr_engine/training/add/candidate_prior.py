"""A candidate without outcomes gets the rows of similar candidates, lowered to what its price makes likely.

A copy of a dearer candidate's row would have its quality at a lower price, and take its traffic for no reason but that. So
the copied logit is lowered by a constant until the mean quality over prompts is no more than all of these:

- what candidates of its price reach: logit of mean quality regressed on log price over the candidates with outcomes, the lower
  end of the one-sided 90 % prediction interval;
- the worst of the candidates with outcomes whose price is within a factor of 2; without any, the best of all of them;
- where it is cheaper than a member it stands in for, that member's quality less 0.1 logits.

A prior is never raised: a dearer newcomer is not better until outcomes say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle, Candidate, HeadsSpec, Price
from ipr_engine.bundle.edit import NewCandidate, with_candidate
from ipr_engine.bundle.head_rows import mean_row
from ipr_engine.bundle.origin import constant_of, prior_of
from ipr_engine.bundle.reliability import read_reliability
from ipr_engine.decide.contract import Heads
from ipr_engine.decide.reference import predict_logit
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.price_table import expected_cost
from ipr_engine.training.add.candidate_row import LAYER, Row
from ipr_engine.training.add.interface import Added, AddTarget, AskedEntry, note_of
from ipr_engine.training.platt import sigmoid

Array = npt.NDArray[np.float64]
FREE_USD = 1e-3  # per 1 M tokens: below it prices no longer tell candidates apart
REQUEST = (1000.0, 500.0)  # input and output tokens of the request whose cost is a candidate's price here
COMPARABLE = 2.0  # a factor of price
CHEAPER_LOGITS = 0.1  # less than a dearer member has
FEWEST_REGRESSED = 4  # candidates with outcomes: with fewer the worst of them is the bound
# Student's 0.9 quantiles by degrees of freedom 2 to 10, then the normal one (Abramowitz and Stegun, table 26.10)
T_QUANTILES = (1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372)
NORMAL_QUANTILE = 1.282
ROUNDING = 1e-9  # logits: less is no shift
FARTHEST_LOGIT = 50.0  # of the search for a shift: far beyond any head's


def add_prior(
    base: Bundle,
    entry: AskedEntry,
    members: tuple[str, ...],
    target: AddTarget,
    progress: Callable[[str], None],
) -> Added:
    """Add the candidate as the mean of the `members`' rows; the other arguments are those of `add_model`.

    Without prompts its token_ratio cannot be measured: that of candidates with its tokenizer stands in, else that of the members.
    """
    candidate, price, named, ratios = entry
    # Nothing was billed yet: the file leaves the ratio to be measured, and there is nothing to measure it on.
    if candidate.name in ratios.of_records | ratios.of_tokenizer:
        of = candidate.tokenizer
        alike = [c.token_ratio for c in base.candidates if of is not None and c.tokenizer == of]
        stand_in = alike or [c.token_ratio for c in base.candidates if c.name in members]
        candidate = replace(candidate, token_ratio=float(np.mean(stand_in)))
    qualities = mean_qualities(base)
    bound = price_bound(base, members, price, qualities)
    shift = shift_to(base, members, qualities, bound)
    report = f"no outcomes: {candidate.name} starts as {' + '.join(members)}"
    progress(report if shift == 0 else f"{report}, its mean quality lowered to {bound.quality:.3f}: {bound.reason}")
    rows = lowered(prior_row(base.quality_heads, members), shift)
    made = None if shift == 0 else {"mean_quality": bound.quality, "logit_shift": shift, "reason": bound.reason}
    note = {"prior_from": list(members), "prompts": 0, "lowered": made}
    constant = _inherited_constant(base, members)
    if constant is not None:
        progress(f"constant head of {candidate.name}: {constant}")
    path = None if base.path_rows is None else f"stale: {candidate.name} has no outcomes and no path rows"
    folder = with_candidate(
        base,
        NewCandidate(
            candidate=candidate,
            price=price,
            rows=rows,
            note=note_of(note, target.created),
            called=named,
            constant=constant,
        ),
        root=target.root,
        created=target.created,
        activate=target.activate,
    )
    lowered_to = None if shift == 0 else bound.quality
    return Added(
        folder,
        candidate.name,
        0,
        members,
        members,
        None,
        None,
        None,
        constant=constant,
        lowered_to=lowered_to,
        path=path,
    )


def _inherited_constant(base: Bundle, members: Sequence[str]) -> str | None:
    """Say why a prior made of the members' rows is constant: each of them is; None where one is not."""
    known = constant_of(base)
    if not all(member in known for member in members):
        return None
    return f"it stands in by constant rows, {', '.join(f'{member} ({known[member]})' for member in members)}"


@dataclass(frozen=True)
class Bound:
    """A `Bound` holds the greatest mean quality that a prior may have, and the reason."""

    quality: float
    reason: str


def most_similar(bundle: Bundle, candidate: Candidate, price: Price, *, priors: bool = False) -> str:
    """Return the candidate with outcomes of its own that is nearest in the ratio of prices, of the newcomer's family where it has one
    there. Ties go by name.

    Args:
        priors: whether one without outcomes will do, where nobody has some.
    Raises:
        InvalidInputError: nobody has outcomes of its own.
    """

    def distance(other: Candidate) -> tuple[bool, float, str]:
        listed = bundle.prices.prices[other.name]
        return other.family.casefold() != candidate.family.casefold(), _distance(price, listed), other.name

    judged = [other for other in bundle.candidates if prior_of(bundle, other.name) is None]
    if not judged and priors:
        judged = list(bundle.candidates)
    if not judged:
        raise InvalidInputError("bundle: no candidate of it has outcomes of its own; add one with outcomes first")
    return min(judged, key=distance).name


def _distance(a: Price, b: Price) -> float:
    """Return the sum of absolute log ratios of input and of output price."""
    pairs = ((a.input_usd_per_1m, b.input_usd_per_1m), (a.output_usd_per_1m, b.output_usd_per_1m))
    return sum(abs(math.log(max(one, FREE_USD) / max(other, FREE_USD))) for one, other in pairs)


def prior_row(heads: HeadsSpec, members: Sequence[str]) -> Row:
    """Return the mean of the members' rows of every tensor, float32; of one member its own bits.

    Raises:
        InvalidInputError: their hidden layers differ, so that no row predicts the mean of their logits.
    """
    rows = [heads.candidates.index(name) for name in members]
    for name in LAYER:
        if name in heads.tensors and not (heads.tensors[name][rows] == heads.tensors[name][rows[0]]).all():
            raise InvalidInputError(
                f"family: {', '.join(members)} have hidden layers of their own ({name}), which have no mean; name one with like"
            )
    return mean_row(heads.tensors, rows)


def mean_qualities(bundle: Bundle) -> dict[str, float]:
    """Return the mean quality of every candidate with outcomes of its own.

    Realised on fitting prompts, as reliability.json has it; else predicted at the centroids of the support, else for x = 0.
    """
    known = [name for name in bundle.names if prior_of(bundle, name) is None]
    tables = read_reliability(bundle) or {}
    predicted = sigmoid(_typical_logits(bundle)).mean(axis=0)
    return {
        name: sum(tables[name].successes) / sum(tables[name].counts)
        if name in tables
        else float(predicted[bundle.names.index(name)])
        for name in known
    }


def _typical_logits(bundle: Bundle) -> Array:
    """Predict the logits (prompts, models) at the centroids of the support, which stand for prompts; without any at x = 0."""
    heads = bundle.quality_heads
    support, spec = bundle.support, bundle.encoder(heads.encoder)
    x = np.zeros((1, spec.dim))
    if support is not None and support.encoder == heads.encoder:
        # Centroids may be of the first columns alone; a forest may read the others.
        x = np.zeros((len(support.centroids), spec.dim))
        x[:, : support.centroids.shape[1]] = support.centroids
        # A head view is that of short prompts, whose two means are the same: zeros are of prompts without a known token.
        whole, head = spec.whole_dim, spec.head_dim
        x[:, whole : whole + head] = x[:, whole - head : whole]
    logits = predict_logit(Heads(**heads.tensors, activation=heads.activation, dim=spec.dim), x)  # type: ignore[arg-type]
    return logits[:, [heads.candidates.index(name) for name in bundle.names]]


def price_bound(bundle: Bundle, members: Sequence[str], price: Price, qualities: Mapping[str, float]) -> Bound:
    """Return the least of the module's bounds on the mean quality of a newcomer of this price.

    Args:
        members: whose rows stand in. qualities: of every candidate with outcomes, at least one.
    """
    prices = {name: bundle.prices.prices[name] for name in bundle.names}
    at = math.log(_request_usd(price))
    logs = {name: math.log(_request_usd(prices[name])) for name in qualities}
    bounds = [_regressed([logs[n] for n in qualities], [_logit(q) for q in qualities.values()], at)]
    near = {name: q for name, q in qualities.items() if abs(logs[name] - at) <= math.log(COMPARABLE)}
    if near:
        worst = min(near, key=near.__getitem__)
        bounds.append(Bound(near[worst], f"{worst} of about its price reaches that"))
    else:
        best = max(qualities, key=qualities.__getitem__)
        bounds.append(Bound(qualities[best], f"{best}, the best candidate with outcomes, reaches that"))
    for name in members:
        if name in qualities and at < math.log(_request_usd(prices[name])):
            below = _squash(_logit(qualities[name]) - CHEAPER_LOGITS)
            bounds.append(Bound(below, f"it is cheaper than {name}"))
    return min(bounds, key=lambda bound: bound.quality)


def lowered(row: Row, shift: float) -> Row:
    """Lower the logit of a row by -shift >= 0; the same bits for 0."""
    return row if shift == 0 else {**row, "bias": np.array(row["bias"] + shift, np.float32)}


def shift_to(bundle: Bundle, members: Sequence[str], qualities: Mapping[str, float], bound: Bound) -> float:
    """Return the shift <= 0 of the members' mean logit after which its mean quality over prompts is the bound.

    A mean over prompts moves less than its own logit would: prompts that are sure to be right, or wrong, hardly move.
    """
    own = [_logit(qualities[name]) for name in members if name in qualities]
    if not own:
        return 0.0
    logits = _typical_logits(bundle)[:, [bundle.names.index(name) for name in members]].mean(axis=1)
    shift = _offset(logits, bound.quality) - _offset(logits, _squash(sum(own) / len(own)))
    return shift if shift < -ROUNDING else 0.0


def _offset(logits: Array, quality: float) -> float:
    """Return the number that brings the logits (prompts,) to this mean quality when it is added, by bisection."""
    low, high, wanted = -FARTHEST_LOGIT, FARTHEST_LOGIT, _squash(_logit(quality))
    while high - low > ROUNDING / 4:
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(logits + middle).mean() < wanted else (low, middle)
    return high


def _regressed(x: Sequence[float], y: Sequence[float], at: float) -> Bound:
    """Return the lower end of the prediction interval of quality at a log price; the slope is not let below 0."""
    prices, logits = np.asarray(x), np.asarray(y)
    if len(prices) < FEWEST_REGRESSED or np.ptp(prices) < 1e-9:
        return Bound(_squash(float(logits.min())), "the worst candidate with outcomes reaches that")
    centred = prices - prices.mean()
    spread = float(centred @ centred)
    slope = max(0.0, float(centred @ logits) / spread)
    rest = logits - logits.mean() - slope * centred
    freedom = len(prices) - 2
    error = math.sqrt(float(rest @ rest) / freedom * (1 + 1 / len(prices) + (at - float(prices.mean())) ** 2 / spread))
    quantile = T_QUANTILES[freedom - 2] if freedom - 2 < len(T_QUANTILES) else NORMAL_QUANTILE
    # The line runs through the means of both.
    line = float(logits.mean()) + slope * (at - float(prices.mean()))
    return Bound(_squash(line - quantile * error), f"{len(prices)} candidates' quality over price makes more unlikely")


def _request_usd(price: Price) -> float:
    """Return what the `REQUEST` costs at this price, at least what it would cost at `FREE_USD`."""
    usd = float(expected_cost([price], [[REQUEST[0]]], [[REQUEST[1]]])[0, 0])
    return max(usd, FREE_USD * sum(REQUEST) / 1e6)


def _logit(quality: float) -> float:
    """Return the logit of a quality, held between 0.001 and 0.999."""
    q = min(max(quality, 0.001), 0.999)  # 0 and 1 have no finite logit
    return math.log(q / (1 - q))


def _squash(logit: float) -> float:
    """Return the quality of a logit."""
    return 1 / (1 + math.exp(-logit))
