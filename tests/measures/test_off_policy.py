"""Estimates of another policy on logged decisions, on logs whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.off_policy import FEWEST_DRAWS, off_policy, off_policy_difference

GRID = np.linspace(0, 1, 4001)


class World:
    """Prompts are a number in [0, 1]; each candidate's chance of a right answer is a line over it."""

    def __init__(self, rng, models, explored, far):
        self.rng, self.models, self.explored, self.far = rng, models, explored, far
        self.start, self.slope = rng.random(models) * 0.5 + 0.3, rng.normal(size=models) * 0.4
        self.bias = rng.normal(size=models) * 0.1

    def quality(self, x):
        return np.clip(self.start + self.slope * (x[:, None] - 0.5), 0.02, 0.98)

    def target(self, x):
        chosen = np.where(x < 0.7, 2 % self.models, 1) if self.far else np.where(x < 0.3, 0, 1)
        return np.eye(self.models)[chosen]

    def own(self, x):
        """What the log's policy chooses, without its draws."""
        return np.eye(self.models)[np.where(x < 0.5, 0, 1)]

    @property
    def truth(self):
        return float((self.target(GRID) * self.quality(GRID)).sum(axis=1).mean())

    @property
    def true_difference(self):
        return float(((self.target(GRID) - self.own(GRID)) * self.quality(GRID)).sum(axis=1).mean())

    def log(self, rows):
        return self.log_of(self.rng.random(rows))

    def log_of(self, x):
        rows, every = len(x), np.arange(len(x))
        chance = np.full((rows, self.models), self.explored / self.models)
        chance[every, np.where(x < 0.5, 0, 1)] += 1 - self.explored
        logged = (chance.cumsum(axis=1) > self.rng.random(rows)[:, None]).argmax(axis=1)
        scores = (self.rng.random(rows) < self.quality(x)[every, logged]).astype(float)
        predicted = np.clip(self.quality(x) + self.bias, 0, 1)
        return scores, logged, chance[every, logged], self.target(x), predicted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "models", "explored", "far"),
    [(500, 5, 0.05, True), (2000, 11, 0.02, True), (2000, 5, 0.1, False), (500, 3, 0.2, False), (2000, 11, 0.1, True)],
)
def test_95_percent_intervals_hold_the_truth_in_at_least_93_percent_of_1000_logs(rng, rows, models, explored, far):
    held = {"ips": 0, "dr": 0}
    for _ in range(1000):
        world = World(rng, models, explored, far)
        *log, predicted = world.log(rows)
        made = off_policy(*log, predicted=predicted)
        for name in held:
            one = getattr(made, name)
            held[name] += one.low <= world.truth <= one.high
    assert min(held.values()) >= 930, held


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "models", "explored", "far"),
    [(500, 5, 0.05, True), (2000, 5, 0.1, False), (500, 3, 0.2, False), (2000, 11, 0.1, True), (2000, 5, 0.3, True)],
)
def test_95_percent_intervals_of_a_difference_hold_it_in_at_least_93_percent_of_1000_logs(
    rng, rows, models, explored, far
):
    held = {"ips": 0, "dr": 0}
    for _ in range(1000):
        world, x = World(rng, models, explored, far), rng.random(rows)
        *log, predicted = world.log_of(x)
        made = off_policy_difference(*log, world.own(x), predicted=predicted)
        for name in held:
            one = getattr(made, name)
            held[name] += one.low <= world.true_difference <= one.high
    assert min(held.values()) >= 930, held


@pytest.mark.slow
@pytest.mark.parametrize(("explored", "far"), [(0.05, False), (0.1, True), (0.3, True)])
def test_95_percent_intervals_of_billed_costs_hold_their_mean_in_at_least_93_percent_of_1000_logs(rng, explored, far):
    held = {"ips": 0, "dr": 0}
    for _ in range(1000):
        world, x = World(rng, 5, explored, far), rng.random(2000)
        _, logged, propensity, target, _ = world.log_of(x)
        size, spread = rng.uniform(-9, -5, 5), rng.uniform(0.5, 1.0)

        def mean(of, size=size):
            return np.exp(size[None] + (of[:, None] - 0.5))

        noise = np.exp(spread * rng.standard_normal(2000) - spread**2 / 2)  # of mean 1
        usd = mean(x)[np.arange(2000), logged] * noise
        expected = mean(x) * np.exp(0.2 * rng.normal(size=5))
        most, truth = usd.max(), (world.target(GRID) * mean(GRID)).sum(axis=1).mean()
        made = off_policy(usd / most, logged, propensity, target, predicted=np.clip(expected / most, 0, 1))
        for name in held:
            one = getattr(made, name)
            held[name] += one.low * most <= truth <= one.high * most
    assert min(held.values()) >= 930, held


@pytest.mark.slow
@pytest.mark.parametrize(("models", "explored", "far"), [(3, 0.3, False), (5, 0.5, True)])
def test_intervals_of_the_fewest_groups_hold_the_truth_in_at_least_93_percent_of_1000_logs(rng, models, explored, far):
    held = told = 0
    while told < 1000:
        world = World(rng, models, explored, far)
        scores, logged, propensity, target, _ = (np.repeat(part, 3, axis=0) for part in world.log(FEWEST_DRAWS))
        if not target[np.arange(len(logged)), logged].any():
            continue  # refused: nothing is known
        made = off_policy(scores, logged, propensity, target, groups=np.repeat(np.arange(FEWEST_DRAWS), 3))
        told += 1
        held += made.ips.low <= world.truth <= made.ips.high
    assert held >= 930


def test_a_log_of_the_policy_itself_gives_its_mean(rng):
    scores = rng.random(200)
    made = off_policy(scores, np.zeros(200, np.int64), np.ones(200), np.tile([1.0, 0.0], (200, 1)))
    assert made.ips.value == made.snips == pytest.approx(scores.mean())
    assert made.effective == pytest.approx(200)
    assert made.ips.low < scores.mean() < made.ips.high


def test_a_difference_from_itself_is_nothing_and_two_turn_around(rng):
    world, x = World(rng, 4, 0.2, far=True), rng.random(400)
    *log, predicted = world.log_of(x)
    target, own = log[3], world.own(x)
    nothing = off_policy_difference(*log, target, predicted=predicted)
    assert nothing.differing == 0
    assert nothing.ips.value == nothing.dr.value == 0.0
    assert nothing.ips.low <= 0.0 <= nothing.ips.high
    one, other = (
        off_policy_difference(*log[:3], *pair, predicted=predicted) for pair in ((target, own), (own, target))
    )
    for name in ("ips", "dr"):
        here, there = getattr(one, name), getattr(other, name)
        assert (here.value, here.low, here.high) == pytest.approx((-there.value, -there.high, -there.low))
    apart = off_policy(*log).ips.value - off_policy(*log[:3], own).ips.value
    assert one.ips.value == pytest.approx(apart)


def test_two_policies_of_few_differing_choices_are_told_apart_by_fewer_rows_than_their_means(rng):
    world, x = World(rng, 3, 0.3, far=False), rng.random(2000)
    log = world.log_of(x)[:4]
    made, alone = off_policy_difference(*log, world.own(x)), off_policy(*log)
    assert 0.1 < made.differing / 2000 < 0.3
    assert made.ips.high - made.ips.low < 1.5 * (alone.ips.high - alone.ips.low)
    assert made.ips.low >= -1.0
    assert made.ips.high <= 1.0


def test_rows_of_one_group_are_one_draw_of_a_difference(rng):
    world, x = World(rng, 3, 0.3, far=False), rng.random(300)
    log = [*world.log_of(x)[:4], world.own(x)]
    apart = off_policy_difference(*log).ips
    together = off_policy_difference(
        *(np.concatenate([part, part]) for part in log), groups=np.tile(np.arange(300), 2)
    ).ips
    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low == pytest.approx(apart.high - apart.low, rel=0.05)


def test_perfect_predictions_leave_the_mean_of_predictions(rng):
    world = World(rng, 4, 0.2, far=True)
    scores, logged, propensity, target, predicted = world.log(400)
    predicted[np.arange(400), logged] = scores
    assert off_policy(scores, logged, propensity, target, predicted=predicted).dr.value == pytest.approx(
        (target * predicted).sum(axis=1).mean()
    )


def test_rows_of_one_group_are_one_draw(rng):
    log = World(rng, 3, 0.3, far=False).log(300)[:4]
    apart = off_policy(*log)
    doubled = [np.concatenate([part, part]) for part in log]
    groups = np.tile(np.arange(300), 2)
    together = off_policy(*doubled, groups=groups)
    assert together.questions == 300
    assert together.ips.value == pytest.approx(apart.ips.value)
    assert together.ips.high - together.ips.low == pytest.approx(apart.ips.high - apart.ips.low, rel=0.05)
    assert off_policy(*doubled).ips.high - off_policy(*doubled).ips.low < 0.8 * (together.ips.high - together.ips.low)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("scores", 1.5, "scores: expected numbers in"),
        ("scores", np.nan, "scores: expected numbers in"),
        ("logged", 7, "logged: expected columns"),
        ("propensity", 0.0, "propensity: expected numbers above 0"),
        ("target", 0.4, "target: expected chances"),
    ],
)
def test_what_is_out_of_range_is_told(rng, name, value, told):
    log = dict(zip(("scores", "logged", "propensity", "target"), World(rng, 3, 0.3, far=False).log(20), strict=False))
    log[name][3] = value
    with pytest.raises(InvalidInputError, match=told):
        off_policy(**log)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logged", np.zeros(19, np.int64)),
        ("propensity", np.ones((20, 1))),
        ("target", np.ones(20)),
        ("scores", np.ones((20, 1))),
        ("predicted", np.ones((19, 3))),
        ("groups", np.arange(19)),
        ("groups", np.arange(20).reshape(20, 1)),
    ],
)
def test_another_number_of_rows_is_told(rng, name, value):
    names = ("scores", "logged", "propensity", "target", "predicted")
    log = dict(zip(names, World(rng, 3, 0.3, far=False).log(20), strict=True))
    with pytest.raises(InvalidInputError, match=rf"^.*{name}.*: expected"):
        off_policy(**{**log, name: value})


@pytest.mark.parametrize("draws", [0, 1, 2, FEWEST_DRAWS - 1])
def test_too_few_rows_or_groups_for_an_interval_are_refused(rng, draws):
    few = [part[:draws] for part in World(rng, 3, 0.3, far=False).log(40)[:4]]
    with pytest.raises(InvalidInputError, match=f"scores: expected at least 10 rows, got {draws}"):
        off_policy(*few)
    if draws:
        log = World(rng, 3, 0.3, far=False).log(40)[:4]
        with pytest.raises(InvalidInputError, match=f"groups: expected at least 10 groups, got {draws}"):
            off_policy(*log, groups=np.arange(40) % draws)


def test_the_fewest_groups_have_an_interval(rng):
    made = off_policy(*World(rng, 3, 0.3, far=False).log(40)[:4], groups=np.arange(40) % FEWEST_DRAWS)
    assert made.questions == FEWEST_DRAWS
    assert made.ips.low < made.ips.high


def test_a_policy_of_which_nothing_is_known_is_refused(rng):
    scores, logged, propensity, target, _ = World(rng, 3, 0.3, far=False).log(20)
    never = np.zeros_like(target)
    never[np.arange(20), (logged + 1) % 3] = 1.0
    with pytest.raises(InvalidInputError, match="log with exploration"):
        off_policy(scores, logged, propensity, never)
