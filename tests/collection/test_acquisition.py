"""Which cells of an outcome table are bought next."""

import numpy as np
import pytest

from ipr_engine.collection.acquisition import FEWEST_ROWS, AcquisitionPlan, CellChooser
from ipr_engine.collection.routed_shares import contender_shares, leading_directions
from ipr_engine.errors import InvalidInputError
from tests.support import skips
from tests.support.seeds import seeded

pytest.importorskip("threadpoolctl", reason=skips.TRAIN)

PROMPTS, DIM = 300, 12
LEVELS = np.array([0.5, 0.9, 0.3, 0.7])  # the third is worse than the first and dear: no setting chooses it
COSTS = np.array([1.0, 10.0, 12.0, 3.0])


def table(*parts, levels=LEVELS, costs=COSTS):
    """Return embeddings, qualities and expected costs of four candidates."""
    random = seeded("acquisition", *parts)
    x = random.standard_normal((PROMPTS, DIM))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    quality = (random.random((PROMPTS, 4)) < levels + 0.2 * x[:, :1]).astype(float)
    return x, quality, np.tile(costs, (PROMPTS, 1))


def bought_by(chooser, quality, budgets):
    """Buy round by round; return the mask after each round."""
    bought, masks = np.zeros(quality.shape, bool), []
    for budget in budgets:
        rows, columns = chooser.next(np.where(bought, quality, np.nan), bought, budget)
        bought = bought.copy()
        bought[rows, columns] = True
        masks.append(bought)
    return masks


def test_the_first_round_buys_whole_rows_within_its_budget():
    x, quality, cost = table()
    chooser = CellChooser(x, cost)
    rows, columns = chooser.next(np.full(quality.shape, np.nan), np.zeros(quality.shape, bool), 50 * COSTS.sum() + 1)
    assert len(rows) == 200
    assert (columns.reshape(50, 4) == np.arange(4)).all()
    assert (rows.reshape(50, 4) == rows.reshape(50, 4)[:, :1]).all()
    assert len(set(rows.tolist())) == 50


def test_a_dear_candidate_that_is_worse_is_not_bought_again():
    x, quality, cost = table()
    first, second = bought_by(CellChooser(x, cost), quality, [60 * COSTS.sum(), 60 * COSTS.sum()])
    more = (second & ~first).sum(axis=0)
    assert more[2] == 0
    assert (more[[0, 1]] > 0).all()


def test_a_candidate_that_few_settings_choose_is_bought_on_unless_the_plan_asks_for_more():
    x, quality, cost = table("dear", levels=np.array([0.5, 0.9, 0.8, 0.7]), costs=np.array([1.0, 10.0, 8.0, 3.0]))
    known = np.ones(quality.shape, bool)
    assert CellChooser(x, cost).contenders(quality, known).all()
    asks_more = CellChooser(x, cost, AcquisitionPlan(least=0.3))
    assert asks_more.contenders(quality, known).tolist() == [True, True, False, True]


def test_no_round_spends_more_than_its_budget_or_buys_a_cell_twice():
    x, quality, cost = table()
    plan = AcquisitionPlan(rounds=4, first_share=0.5)
    budgets = plan.budgets(0.4 * cost.sum())
    assert sum(budgets) == pytest.approx(0.4 * cost.sum())
    chooser, bought = CellChooser(x, cost, plan), np.zeros(quality.shape, bool)
    for budget in budgets:
        rows, columns = chooser.next(np.where(bought, quality, np.nan), bought, budget)
        assert cost[rows, columns].sum() <= budget
        assert not bought[rows, columns].any()
        assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(rows)
        bought[rows, columns] = True


def test_no_more_calls_are_chosen_than_the_share_allows():
    x, quality, cost = table()
    masks = bought_by(CellChooser(x, cost, AcquisitionPlan(calls_share=0.25)), quality, [1e9, 1e9])
    assert masks[-1].mean() == pytest.approx(0.25)


def test_the_same_table_gives_the_same_cells_in_another_process_of_choosing():
    x, quality, cost = table()
    budgets = [60 * COSTS.sum(), 40 * COSTS.sum()]
    first, second = (bought_by(CellChooser(x, cost), quality, budgets)[-1] for _ in range(2))
    assert (first == second).all()
    other = bought_by(CellChooser(x, cost, AcquisitionPlan(seed=1)), quality, budgets)[-1]
    assert (first != other).any()


def test_everyone_is_a_contender_until_enough_whole_rows_are_known():
    x, quality, cost = table()
    chooser = CellChooser(x, cost)
    few, enough = np.zeros(quality.shape, bool), np.zeros(quality.shape, bool)
    few[: FEWEST_ROWS - 1], enough[:100] = True, True
    assert chooser.contenders(np.where(few, quality, np.nan), few).all()
    assert chooser.contenders(np.where(enough, quality, np.nan), enough).tolist() == [True, True, False, True]


def test_a_call_that_failed_is_not_chosen_again_and_the_rest_goes_on():
    x, quality, cost = table()
    bought = np.zeros(quality.shape, bool)
    bought[:100] = True
    known = np.where(bought, quality, np.nan)
    known[:30, 0] = np.nan  # asked, no answer
    rows, columns = CellChooser(x, cost).next(known, bought, 50 * COSTS.sum())
    assert len(rows)
    assert not bought[rows, columns].any()


def test_nothing_is_chosen_where_nothing_can_be_paid_or_is_left():
    x, quality, cost = table()
    chooser = CellChooser(x, cost)
    assert not len(chooser.next(np.full(quality.shape, np.nan), np.zeros(quality.shape, bool), 0.0)[0])
    assert not len(chooser.next(quality, np.ones(quality.shape, bool), 1e9)[0])


def test_shares_of_contenders_are_shares_and_a_useless_candidate_has_none():
    x, quality, cost = table()
    shares = contender_shares(leading_directions(x), quality, cost, np.arange(PROMPTS), draws=8, seed=0)
    assert shares.sum() == pytest.approx(1.0)
    assert (shares >= 0).all()
    assert shares[2] < 0.01 < shares[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"first_share": 0.0}, "first_share"),
        ({"first_share": 1.5}, "first_share"),
        ({"calls_share": 0}, "calls_share"),
        ({"least": -0.1}, "least"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 2.0}, "rounds"),
        ({"draws": 0}, "draws"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_option_is_named(options, named):
    with pytest.raises(InvalidInputError, match=rf"^{named}: expected"):
        AcquisitionPlan(**options)


def test_wrong_tables_are_named():
    x, quality, cost = table()
    with pytest.raises(InvalidInputError, match=r"^embeddings, expected_cost: expected"):
        CellChooser(x[:-1], cost)
    with pytest.raises(InvalidInputError, match=r"^embeddings: expected finite"):
        CellChooser(np.where(x == x[0, 0], np.nan, x), cost)
    with pytest.raises(InvalidInputError, match=r"^expected_cost: expected finite values > 0"):
        CellChooser(x, np.zeros_like(cost))
    chooser, bought = CellChooser(x, cost), np.zeros(quality.shape, bool)
    with pytest.raises(InvalidInputError, match=r"^quality, bought: expected"):
        chooser.next(quality[:-1], bought, 1.0)
    with pytest.raises(InvalidInputError, match=r"^quality, bought: expected"):
        chooser.next(quality, bought.astype(int), 1.0)
    with pytest.raises(InvalidInputError, match=r"^quality: expected values in \[0, 1\]"):
        chooser.next(quality + 1, bought, 1.0)
    with pytest.raises(InvalidInputError, match=r"^budget_usd: expected"):
        chooser.next(quality, bought, -1.0)
