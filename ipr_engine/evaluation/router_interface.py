"""This file holds what a router of any kind is to `ipr eval --router`: a function `fit` that returns a function `route`.

    def fit(train):                          # FittingData: training prompts, their outcomes and costs, candidates and prices
        ...
        def route(prompts):                  # a tuple of str, without any outcome
            return choices                   # (settings, prompts) names or positions, or (settings, prompts, candidates) shares
        return route

`route` may take a `seed` too: such a router chooses by chance. docs/judging-routers.md has an example that runs.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import shown, shown_each
from ipr_engine.bundle.price import Price
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.measures.routing import WeightedOutcomes
from ipr_engine.measures.sweeps import WORTHS

Array = npt.NDArray[np.float64]
Route = Callable[..., Any]
Fit = Callable[["FittingData"], Route]


@dataclass(frozen=True, eq=False, kw_only=True)
class FittingData:
    """`FittingData` are all that a router may see before it routes: no test prompt's outcome can be reached from them.

    Attributes:
        candidates: names, the column order of every (prompts, candidates) array. prices: one each, of the bundle.
        prompts: of the training split, less those that ask a question of the test split.
        quality: (prompts, candidates) in [0, 1]. cost_usd: the same shape, USD of that answer. Read-only, complete.
        embed: gives (prompts, dim) float64, the embeddings of any prompts by the bundle's first encoder.
        worths: USD per unit of quality, rising from 0: the settings of a sweep by worth, the same in every fit of an evaluation.
        seed: of whatever the fit draws.
    """

    candidates: tuple[str, ...]
    prices: tuple[Price, ...]
    prompts: tuple[str, ...]
    quality: Array
    cost_usd: Array
    embed: Callable[[Sequence[str]], Array]
    worths: Array = field(default_factory=lambda: WORTHS)
    seed: int = 0

    @property
    def outcomes(self) -> WeightedOutcomes:
        """Qualities and costs as the sweeps and hulls of `ipr_engine.measures` take them."""
        return WeightedOutcomes.complete(self.quality, self.cost_usd)

    def take(self, rows: npt.NDArray[np.bool_]) -> FittingData:
        """Return the prompts that a mask (prompts,) names."""
        return FittingData(
            candidates=self.candidates,
            prices=self.prices,
            prompts=tuple(prompt for prompt, kept in zip(self.prompts, rows, strict=True) if kept),
            quality=read_only(self.quality[rows]),
            cost_usd=read_only(self.cost_usd[rows]),
            embed=self.embed,
            worths=self.worths,
            seed=self.seed,
        )


def read_only(values: Array) -> Array:
    """Return a copy that shares no memory with anything, and that nobody can change."""
    copy = np.array(values, dtype=np.float64)
    copy.setflags(write=False)
    return copy


def load_router(place: str) -> Fit:
    """Import `module:function`; a module of the working folder is found, too.

    Raises:
        InvalidInputError: the place has another form, there is no such module or function, it cannot be called, or the module fails
            while it is imported.
    """
    module, _, function = place.partition(":")
    if not module or not function.isidentifier():
        raise InvalidInputError(f"--router: expected module:function, got {shown(place)}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script has the folder of its own file there
    found = called(place, f"importing {module}", _imported, module)
    if found is None:
        raise InvalidInputError(
            f"--router {place}: there is no module {module!r}; expected one that is installed, or a file of the working folder: "
            "my_router:fit is the function fit of my_router.py"
        )
    fit: Fit | None = getattr(found, function, None)
    if fit is None:
        own = [name for name, value in vars(found).items() if inspect.isfunction(value) and not name.startswith("_")]
        raise InvalidInputError(
            f"--router {place}: {module} has no {function!r}; its functions: {shown_each(own) or 'none'}"
        )
    if not callable(fit):
        raise InvalidInputError(
            f"--router {place}: expected a function fit(train) that returns route(prompts), got {type(fit).__name__}"
        )
    return fit


def _imported(module: str) -> Any:
    """Import a module; None where there is none of this name."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # What the module itself imports and lacks is an error of its own.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        return None


def called(name: str, doing: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a router's own code with these arguments. What it prints goes to stderr, what it raises becomes an error without its text.

    Raises:
        InvalidInputError: it failed; says with what, and where. Its message may hold a prompt and is left out.
        BackendUnavailableError: a package is missing that this library asks for; says what to install.
    """
    kind: type[BackendUnavailableError | InvalidInputError] = InvalidInputError
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the report
            return call(*arguments, **options)
    except (BackendUnavailableError, InvalidInputError) as error:  # of this library: they hold no prompt
        kind, found = type(error), str(error)
    except ModuleNotFoundError as error:
        lacking = error.name or ""  # a name that can be imported is no prompt
        told = f": no module {lacking!r}, install what holds it" if _importable(lacking) else ""
        found = f"ModuleNotFoundError in {_place(error)}{told}"
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__} in {_place(error)}; its text is not shown, since it may hold a prompt: call the function in Python"
    # Raised after the handlers, so that the router's own error is not carried along.
    raise kind(f"--router {name}: while {doing}: {found}")


def _importable(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _place(error: BaseException) -> str:
    """Return where the router's own code failed, and where that error came from."""
    if isinstance(error, SyntaxError):
        return f"{os.path.basename(error.filename or '?')}, line {error.lineno}"
    frames = [
        f"{os.path.basename(frame.filename)}, line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    if not frames:
        return "the call itself"
    return frames[0] if frames[0] == frames[-1] else f"{frames[0]} (raised in {frames[-1]})"
