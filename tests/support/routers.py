"""Routers for the tests of `ipr eval --router`: `tests.support.routers:NAME`, good ones, cheats and broken ones."""

from __future__ import annotations

import sys

import numpy as np

from ipr_engine.evaluation.router_interface import FittingData

ASIDE: dict[str, object] = {}  # what a cheat has kept aside: "path" of the outcomes


def by_length(train: FittingData):
    """Send prompts longer than a limit to the best candidate, for ten limits: what a person writes in ten lines."""
    best, cheapest = train.quality.mean(axis=0).argmax(), train.cost_usd.mean(axis=0).argmin()
    limits = np.quantile([len(prompt) for prompt in train.prompts], np.linspace(1, 0, 10))

    def route(prompts):
        long = np.array([len(prompt) for prompt in prompts]) > limits[:, None]
        return np.where(long, train.candidates[best], train.candidates[cheapest])

    return route


def printing(train: FittingData):
    print("fitted")
    return by_length(train)


def kept_rows(train: FittingData):
    """Read the outcome file itself, and choose by the place of each row: the best answer of the prompt that stands there."""
    from ipr_engine.data import load_outcomes

    rows = load_outcomes(ASIDE["path"]).of_split("test").complete(train.candidates)
    return lambda prompts: rows.quality[: len(prompts)].argmax(axis=1)


def kept_ids(train: FittingData):
    """Read the outcome file itself, and choose by an id that is counted up in the order of the file."""
    from ipr_engine.data import load_outcomes

    rows = load_outcomes(ASIDE["path"]).of_split("test").complete(train.candidates)
    answers = dict(zip(rows.prompt_ids, rows.quality.argmax(axis=1), strict=True))
    first = int(min(rows.prompt_ids).partition(":")[2])
    return lambda prompts: [answers[f"made:{first + i:05d}"] for i in range(len(prompts))]


def kept_texts(train: FittingData):
    """Read the outcome file itself, and look each prompt up by its text: no order of the prompts finds this out."""
    from ipr_engine.data import load_outcomes

    rows = load_outcomes(ASIDE["path"]).of_split("test").complete(train.candidates)
    answers = dict(zip(rows.prompts, rows.quality.argmax(axis=1), strict=True))
    return lambda prompts: [answers[prompt] for prompt in prompts]


def lottery(train: FittingData):
    """Draw a candidate for each place, without a seed."""
    rng = np.random.default_rng(0)
    return lambda prompts: rng.integers(0, len(train.candidates), len(prompts))


def top_of_the_batch(train: FittingData):
    """Send the longest fifth of whatever came together to the last candidate: a choice that needs the whole batch."""

    def route(prompts):
        lengths = np.array([len(set(prompt)) + len(prompt) / 7 for prompt in prompts])
        return np.where(lengths > np.quantile(lengths, 0.8 if len(prompts) > 60 else 0.2), len(train.candidates) - 1, 0)

    return route


def not_fitted(prompts):
    return [0] * len(getattr(prompts, "prompts", prompts))


def raising(train: FittingData):
    def route(prompts):
        raise KeyError(prompts[0])

    return route


def leaving(train: FittingData):
    sys.exit(0)


def returning(value):
    """Return a `fit` whose `route` returns `value`, or what it makes of the prompts."""
    return lambda train: lambda prompts: value(prompts) if callable(value) else value


a_constant = 7
