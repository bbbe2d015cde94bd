"""What another collection paid is not paid again, where a plan names its folder."""

from __future__ import annotations

import json
import sqlite3
from hashlib import sha256

import pytest

from ipr_engine.collection.collect import CollectOptions, collect
from ipr_engine.collection.ledger import LEDGER, Ledger
from ipr_engine.collection.other_ledgers import check_ledgers, take_answers
from ipr_engine.errors import InvalidInputError
from tests.support.collections import candidate, plan_for, questions

FILL = "INSERT INTO answer (key, candidate, text, attempt) VALUES (?, ?, ?, ?)"


def outcomes(plan):
    lines = (plan.out_folder / "outcomes.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_answers_of_another_collection_are_taken_at_today_s_price_and_the_rest_is_asked(tmp_path, server):
    before = plan_for(tmp_path / "before", server.base_url)
    made = collect(before, questions(6, "Known {}?"))
    assert made.done.answered == 6
    calls = server.calls()
    renamed = candidate("renamed", model="plain", input_usd_per_1m=2.0, output_usd_per_1m=4.0)
    plan = plan_for(tmp_path / "after", server.base_url, renamed, ledgers=("../before/collected",))
    (tmp_path / "after").mkdir()
    dry = collect(plan, questions(10, "Known {}?"), CollectOptions(dry_run=True))
    assert (dry.estimates["renamed"].calls, dry.estimates["renamed"].settled) == (4, 6)
    after = collect(plan, questions(10, "Known {}?"))
    assert after.done.answered == 4
    assert sum((server.calls() - calls).values()) == 4
    assert after.spent_usd < 2 * made.spent_usd  # of its own calls alone
    cost = {row["prompt_id"]: row["cost_usd"] for row in outcomes(plan)}
    assert len(cost) == 10
    for row in outcomes(before):
        assert cost[row["prompt_id"]] == pytest.approx(2 * row["cost_usd"])
    assert collect(before, questions(6, "Known {}?")).spent_usd == made.spent_usd  # the other one stays as it is


def test_another_limit_of_tokens_is_another_call(tmp_path, server):
    before = plan_for(tmp_path / "before", server.base_url)
    collect(before, questions(3, "Limit {}?"))
    longer = plan_for(tmp_path / "after", server.base_url, candidate(max_tokens=17), ledgers=("../before/collected",))
    (tmp_path / "after").mkdir()
    assert collect(longer, questions(3, "Limit {}?")).done.answered == 3


def test_a_folder_without_a_ledger_the_own_one_and_one_in_use_are_refused(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, ledgers=("nowhere",))
    with pytest.raises(InvalidInputError, match=r"ledgers\[0\]: expected the folder of another collection, .*nowhere"):
        collect(plan, questions(1))
    collect(plan_for(tmp_path, server.base_url), questions(1))
    with pytest.raises(InvalidInputError, match=r"ledgers\[0\]: .* is this collection's own; leave it out"):
        collect(plan_for(tmp_path, server.base_url, ledgers=("collected",)), questions(1))
    other = plan_for(tmp_path / "other", server.base_url)
    collect(other, questions(1))
    again = plan_for(tmp_path, server.base_url, ledgers=("other/collected",))
    with (
        Ledger(other.out_folder / LEDGER),
        pytest.raises(InvalidInputError, match=r"ledgers\[0\]: .*another process writes this ledger"),
    ):
        collect(again, questions(1))
    with sqlite3.connect(other.out_folder / LEDGER) as connection:
        connection.execute("UPDATE ledger SET format = 2")
    with pytest.raises(InvalidInputError, match=r"ledgers\[0\]: .*is a ledger of format 2, this release knows 1"):
        collect(again, questions(1))
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(InvalidInputError, match=r"ledgers\[1\]: expected the folder of another collection"):
        check_ledgers((other.out_folder, tmp_path / "round"), tmp_path)


def test_pages_are_taken_once_and_told(tmp_path):
    rows = [(sha256(b"%d" % number).digest(), "plain", str(number), number % 3 or None) for number in range(2345)]
    for name, part in (("one", rows[:1500]), ("two", rows[1000:])):
        (tmp_path / name).mkdir()
        with Ledger(tmp_path / name / LEDGER) as other:
            other.do(lambda of, part=part: of.executemany(FILL, part))
    told = []
    with Ledger(tmp_path / LEDGER) as ledger:
        for _ in range(2):
            told.append(take_answers(ledger, [tmp_path / "one", tmp_path / "two"]))
        taken = ledger.do(lambda of: of.execute("SELECT key, candidate, text, attempt FROM answer").fetchall())
    assert sorted(taken) == sorted((*row[:3], None if row[3] is None else 0) for row in rows)
    assert told == [{tmp_path / "one": 1500, tmp_path / "two": 845}, {}]
