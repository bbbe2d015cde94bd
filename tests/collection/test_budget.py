"""The cap of a budget holds whatever the order in which calls are set aside and settled."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine.collection.budget import Budget, BudgetSpentError


@given(
    calls=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.floats(0, 1)), max_size=40),
    caps=st.tuples(st.integers(0, 200), st.none() | st.integers(0, 100)),
    before=st.integers(0, 50),
)
def test_what_is_spent_and_in_flight_never_exceeds_a_cap(calls, caps, before):
    async def run():
        budget = Budget(caps[0], {"a": caps[1], "b": None}, {"a": before})
        spent = {"a": before, "b": 0}

        async def one(name, most, share):
            try:
                await budget.reserve(name, most)
            except BudgetSpentError:
                return
            assert budget.charged + budget.reserved <= max(caps[0], before)
            await asyncio.sleep(0)
            spent[name] += int(share * most)
            await budget.settle(name, most, int(share * most))

        await asyncio.gather(*(one(*call) for call in calls))
        assert budget.reserved == 0
        assert sum(spent.values()) == budget.charged <= max(caps[0], before)
        assert caps[1] is None or spent["a"] <= max(caps[1], before)

    asyncio.run(run())


def test_a_call_waits_for_room_that_those_in_flight_may_leave():
    async def run():
        budget = Budget(10, {"a": None}, {})
        await budget.reserve("a", 8)
        waiting = asyncio.create_task(budget.reserve("a", 8))
        await asyncio.sleep(0)
        assert not waiting.done()
        await budget.settle("a", 8, 1)
        await waiting
        assert budget.charged + budget.reserved == 9

    asyncio.run(run())


def test_a_cap_without_room_says_whose_it_is():
    async def run():
        budget = Budget(10, {"a": 3, "b": None}, {})
        with pytest.raises(BudgetSpentError) as error:
            await budget.reserve("a", 4)
        assert error.value.of == "a"
        with pytest.raises(BudgetSpentError) as error:
            await budget.reserve("b", 11)
        assert error.value.of is None

    asyncio.run(run())
