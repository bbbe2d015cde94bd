"""`BuyingRounds` give the calls of the cells that are worth buying, round by round, where a plan buys a part of its table.

A collection that was interrupted goes on with the round that it was in, and comes to the same table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ipr_engine._files import sha256_hex
from ipr_engine.collection.acquisition import CellChooser
from ipr_engine.collection.bill import TokenUsage, call_usd
from ipr_engine.collection.calls import Call, settled_keys
from ipr_engine.collection.cells import AskedCell, cells_of
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.estimate import likely_input_tokens, mean_outputs
from ipr_engine.collection.ledger import PAGE, Ledger
from ipr_engine.data import load_outcomes
from ipr_engine.training.train_options import EncoderChoice

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Item = TypeVar("Item")
LEAST_USD = 1e-9  # of a free candidate: the chooser weighs by cost


class BuyingRounds:
    """A `BuyingRounds` holds the prompts of a run. A round's cells are chosen once, when the round before it is done, and noted."""

    def __init__(self, ledger: Ledger, plan: CollectionPlan, run: int) -> None:
        assert plan.acquisition is not None
        self._ledger, self._plan, self._options = ledger, plan, plan.acquisition
        rows = ledger.do(lambda of: of.execute(_PROMPTS, (run,)).fetchall())
        self._numbers, self._ids = [row[0] for row in rows], [row[1] for row in rows]
        self._x = np.asarray(EncoderChoice().open().encoder.encode([row[2] for row in rows]).x, np.float64)
        asked = [(one.name, one.model, one.most_tokens) for one in plan.asked]
        made_for = (self._options, asked, self._ids, plan.samples, plan.budget_usd)
        self._name = sha256_hex(repr(made_for).encode("utf-8", "surrogatepass"))

    async def calls(self, number: int, *, again: bool) -> AsyncIterator[Call]:
        """Yield the open calls of a round, in the order to send them. number: of the round, from 1."""
        chosen = self._ledger.do(lambda of: of.execute(_CHOSEN, (self._name, number)).fetchall())
        if not chosen:
            chosen = self._choose(number, again)
            noted = [(self._name, number, place, *cell) for place, cell in enumerate(chosen)]
            self._ledger.do(lambda of: of.executemany("INSERT INTO chosen VALUES (?, ?, ?, ?, ?)", noted) and None)
        for page in _paged(chosen):
            wanted = set(page)
            cells = [cell for one in self._cells(list(dict.fromkeys(row for row, _ in page))) for cell in one]
            calls = [cell.call for cell in cells if (cell.question, cell.call.candidate) in wanted]
            settled = self._ledger.do(lambda of, calls=calls: settled_keys(of, [one.key for one in calls], again=again))  # type: ignore[misc]
            for call in calls:
                if call.key not in settled:
                    yield call

    def _choose(self, number: int, again: bool) -> list[tuple[int, str]]:
        """Return the prompts and candidates to buy in a round, by what the tables hold."""
        cost, allowed = self._expected()
        bought = self._bought(cost.shape, again)
        budgets = self._options.budgets(min(self._plan.budget_usd, float(cost[allowed].sum())))
        left = sum(budgets[:number]) - float(cost[bought & allowed].sum())
        quality = self._quality(cost.shape) if bought.any() else np.full(cost.shape, np.nan)
        chooser = CellChooser(self._x, cost, self._options)
        most = int(self._options.calls_share * int(allowed.sum())) - int((bought & allowed).sum())
        rows, columns = chooser.next(quality, bought | ~allowed, max(left, 0.0), most_calls=max(most, 0))
        names = [one.name for one in self._plan.asked]
        return [
            (self._numbers[row], names[column]) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]

    def _expected(self) -> tuple[Array, Mask]:
        """Return what each cell is expected to cost, (prompts, candidates), USD, and whether it can be asked at all."""
        means = self._ledger.do(mean_outputs)
        index = {one.name: column for column, one in enumerate(self._plan.asked)}
        cost = np.full((len(self._numbers), len(index)), LEAST_USD)
        allowed = np.zeros(cost.shape, np.bool_)
        for row, cells in enumerate(self._cells(self._numbers)):
            for cell in cells:
                column = index[cell.call.candidate]
                asked = self._plan.asked[column]
                given = likely_input_tokens(cell.call, asked.most_tokens)
                usage = TokenUsage(input_tokens=given, output_tokens=round(means.get(asked.name, asked.most_tokens)))
                cost[row, column] += call_usd(asked.price, usage, cell.call.images)
                allowed[row, column] = True
        return cost, allowed

    def _bought(self, shape: tuple[int, ...], again: bool) -> Mask:
        """Return which cells need no call, (prompts, candidates)."""
        index = {one.name: column for column, one in enumerate(self._plan.asked)}
        made = np.zeros(shape, np.bool_)
        for places in _paged(range(len(self._numbers))):
            page = list(self._cells([self._numbers[place] for place in places]))
            keys = [cell.call.key for cells in page for cell in cells]
            settled = self._ledger.do(lambda of, keys=keys: settled_keys(of, keys, again=again))  # type: ignore[misc]
            for row, cells in zip(places, page, strict=True):
                for cell in cells:  # of several samples, all
                    column = index[cell.call.candidate]
                    made[row, column] = cell.call.key in settled and (made[row, column] or cell.sample == 0)
        return made

    def _quality(self, shape: tuple[int, ...]) -> Array:
        """Return the qualities that the tables hold so far, (prompts, candidates), NaN where there is none."""
        loaded = load_outcomes(self._plan.out_folder)
        row_of = {prompt_id: row for row, prompt_id in enumerate(loaded.prompt_ids)}
        columns = {name: column for column, name in enumerate(loaded.models)}
        quality = np.full(shape, np.nan)
        rows = [row_of[prompt_id] for prompt_id in self._ids]
        for column, one in enumerate(self._plan.asked):
            if one.name in columns:
                quality[:, column] = loaded.quality[rows, columns[one.name]]
        return quality

    def _cells(self, questions: Sequence[int]) -> Iterator[list[AskedCell]]:
        """Yield the cells of prompts, by their numbers in the ledger."""
        for numbers in _paged(questions):
            found = self._ledger.do(lambda of, numbers=numbers: _bodies(of, numbers))  # type: ignore[misc]
            for number in numbers:
                yield cells_of((number, 0, found[number]), self._plan)


_CHOSEN = "SELECT question, candidate FROM chosen WHERE acquisition = ? AND round = ? ORDER BY position"
_PROMPTS = "SELECT id, prompt_id, prompt FROM question WHERE run = ? ORDER BY turn, id"


def _bodies(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, str]:
    marks = ",".join("?" * len(numbers))
    return dict(connection.execute(f"SELECT id, body FROM question WHERE id IN ({marks})", list(numbers)).fetchall())


def _paged(values: Sequence[Item]) -> Iterator[list[Item]]:
    rest = iter(values)
    while page := list(islice(rest, PAGE)):
        yield page
