"""`contender_of` runs a router of any kind (router_interface.py) on the test prompts, and makes it a line of the table.

A router is given the test prompts alone, in an order that it cannot know, and then again in another order and in two parts. A choice
that follows the place of a prompt, and not its text, differs between the two, and is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.contenders import Choices, Contender, Shares
from ipr_engine.evaluation.router_choices import choices_of
from ipr_engine.evaluation.router_interface import Fit, FittingData, Route, called
from ipr_engine.measures.resampling import one_thread

Array = npt.NDArray[np.float64]

MOST_MOVED = 1e-3  # share of the choices that the rounding of sums may turn where a prompt stands elsewhere
SEEDS = 8  # calls of a router that chooses by chance


@dataclass(frozen=True, eq=False)
class TrainingFolds:
    """`TrainingFolds` say how to run a router on training prompts that its fit has not seen.

    Attributes:
        prompts: (rows,) the training prompts. folds: (rows,) fold of each.
    """

    prompts: Sequence[str]
    folds: npt.NDArray[np.int64]


def contenders_of(
    routers: Mapping[str, Fit],
    train: FittingData,
    prompts: Sequence[str] | None,
    held: TrainingFolds | None,
    progress: Callable[[str], None],
) -> list[Contender]:
    """Run every router, as `contender_of` does; of each a line of progress."""
    found = []
    for name, fit in routers.items():
        progress(f"fitting and running {name} ...")
        found.append(contender_of(name, fit, train, prompts, held))
    return found


def contender_of(
    name: str, fit: Fit, train: FittingData, prompts: Sequence[str] | None, held: TrainingFolds | None = None
) -> Contender:
    """Fit a router and run it on the test prompts.

    Args:
        train: its prompts are those of `held`.
        prompts: the test prompts; None: it is judged on the training prompts, each fold by a fit on the others.
        held: to run it out of fold on the training prompts; None: its settings are chosen on halves of the test split.
    Raises:
        InvalidInputError: it fails, returns what is no choice, or chooses otherwise where prompts stand in another order.
        BackendUnavailableError: a package that it needs is missing.
    """
    with one_thread():  # the same figures from the same input
        if prompts is None:
            assert held is not None
            sweep, chance = _out_of_fold(name, fit, train, held)
            return Contender(name, "other router", sweep, None, f"fitted on the other folds{chance}")
        route = _fitted(name, fit, train)
        judged = _judged(name, route, prompts, train)
        out = None if held is None else _out_of_fold(name, fit, train, held, judged.points)[0]
    return Contender(name, "other router", judged, out, f"fitted on {len(train.prompts)} prompts{_chance(route)}")


def _chance(route: Route) -> str:
    return f", by chance: mean of {SEEDS} seeds" if takes_seed(route) else ""


def takes_seed(route: Route) -> bool:
    """Say whether a router chooses by chance: its `route` has a parameter `seed`."""
    try:
        return "seed" in inspect.signature(route).parameters
    except (TypeError, ValueError):  # of a callable of C that tells none
        return False


def _fitted(name: str, fit: Fit, train: FittingData) -> Route:
    _require_parameters(name, "fit(train)", fit, train)
    route = called(name, "fitting", fit, train)
    if not callable(route):
        raise InvalidInputError(
            f"--router {name}: expected fit(train) to return a function route(prompts), got {type(route).__name__}"
        )
    found: Route = route
    options = {"seed": 0} if takes_seed(found) else {}
    _require_parameters(name, "route(prompts), or route(prompts, seed)", found, (), **options)
    return found


def _require_parameters(name: str, wanted: str, function: Route, *arguments: Any, **options: Any) -> None:
    """Refuse a function that cannot be called in this way, before it is called."""
    try:
        inspect.signature(function).bind(*arguments, **options)
        return
    except TypeError as error:  # its text holds names of parameters alone
        found = str(error)
    except ValueError:  # a callable of C that tells none
        return
    raise InvalidInputError(f"--router {name}: expected a function {wanted}, got one that cannot be called so: {found}")


def _judged(name: str, route: Route, prompts: Sequence[str], train: FittingData) -> Choices | Shares:
    """Route the prompts in an order that the router cannot know, more than once; return its choices in their own order."""
    rng, models = np.random.default_rng([train.seed, len(prompts)]), len(train.candidates)
    if takes_seed(route):
        seeds = rng.integers(2**31, size=SEEDS).tolist()
        first = _routed(name, route, prompts, rng.permutation(len(prompts)), train, seeds[0])
        chances = first.chances(models)
        for seed in seeds[1:]:  # one at a time: chances of all of them would be large
            run = _routed(name, route, prompts, rng.permutation(len(prompts)), train, seed)
            chances = chances + _same_settings(name, first, run).chances(models)
        return Shares(chances / SEEDS)
    first = _routed(name, route, prompts, rng.permutation(len(prompts)), train)
    # In two parts: a prompt's company must not decide either, since requests come one by one.
    order = rng.permutation(len(prompts))
    parts = [part for part in np.split(order, [len(order) // 3]) if len(part)]
    again = [_routed(name, route, [prompts[i] for i in part.tolist()], np.arange(len(part)), train) for part in parts]
    moved = np.mean(
        np.concatenate(
            [
                _distance(first.subset(part), _same_settings(name, first, run), models).mean(axis=0)
                for part, run in zip(parts, again, strict=True)
            ]
        )
    )
    if moved > MOST_MOVED:
        raise InvalidInputError(
            f"--router {name}: {moved:.1%} of its choices changed where the same prompts came in another order and in two parts: it "
            "goes by the place of a prompt, or by its company. Choose by the text of each prompt alone; by chance: return shares, or "
            "take a seed, route(prompts, seed)"
        )
    return first


def _out_of_fold(
    name: str, fit: Fit, train: FittingData, held: TrainingFolds, points: int | None = None
) -> tuple[Shares, str]:
    """Run each fold of the training prompts by a fit on the others; return the sweep, and what is to be said of chance.

    Args:
        points: how many settings are expected; None: as many as those of the first fold.
    """
    chance = ""
    parts: list[Array] = []
    places: list[npt.NDArray[np.int64]] = []
    for fold in np.unique(held.folds):
        part = train.take(held.folds != fold)
        route = _fitted(name, fit, part)
        rows = np.flatnonzero(held.folds == fold)
        sweep = _judged(name, route, [held.prompts[i] for i in rows.tolist()], part)
        points = sweep.points if points is None else points
        if sweep.points != points:
            raise InvalidInputError(
                f"--router {name}: its fits return {points} and {sweep.points} settings; where it is fitted without each fold of the "
                "prompts (--validation train, --cross-fit) every fit must have the same ones"
            )
        parts.append(sweep.chances(len(train.candidates)))
        places.append(rows)
        chance = _chance(route)
    return Shares(np.concatenate(parts, axis=1)[:, np.argsort(np.concatenate(places))]), chance


def _routed(
    name: str,
    route: Route,
    prompts: Sequence[str],
    order: npt.NDArray[np.int64],
    train: FittingData,
    seed: int | None = None,
) -> Choices | Shares:
    """Call `route` once, on the prompts in this order, and return its choices in their own order."""
    given = tuple(prompts[i] for i in order.tolist())
    options = {} if seed is None else {"seed": seed}
    returned = called(name, "routing", route, given, **options)
    return choices_of(name, returned, given, train).subset(np.argsort(order))


def _same_settings(name: str, first: Choices | Shares, other: Choices | Shares) -> Choices | Shares:
    if first.points != other.points or type(first) is not type(other):
        raise InvalidInputError(
            f"--router {name}: it returned {first.points} settings, and {other.points} or of another kind at the next call; "
            "expected the same settings whatever the prompts are"
        )
    return other


def _distance(a: Choices | Shares, b: Choices | Shares, models: int) -> Array:
    """Return how far two sweeps are apart, 0 to 1 (total variation): (settings, rows)."""
    if isinstance(a, Choices) and isinstance(b, Choices):
        return np.asarray(a.choices != b.choices, dtype=np.float64)
    return np.asarray(np.abs(a.chances(models) - b.chances(models)).sum(axis=2) / 2)
