"""The ledger is one file that one process writes; what it has said is done is on the disk."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading

import pytest

from ipr_engine.collection.ledger import Ledger, LedgerError, add_spent, spent_so_far
from ipr_engine.errors import InvalidInputError


def test_work_is_done_in_order_and_stays(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        done = [ledger.submit(lambda of, n=n: add_spent(of, "a", n)) for n in range(100)]
        assert ledger.do(spent_so_far) == {"a": 4950}
        assert all(one.done() for one in done)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.do(spent_so_far) == {"a": 4950}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ledger.sqlite"]
    assert stat.S_IMODE(os.stat(tmp_path / "ledger.sqlite").st_mode) == 0o600


def test_work_that_fails_changes_nothing_and_the_rest_is_done(tmp_path):
    def failing(of):
        add_spent(of, "a", 5)
        raise ValueError("no")

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        failed, after = ledger.submit(failing), ledger.submit(lambda of: add_spent(of, "a", 1))
        with pytest.raises(ValueError, match="no"):
            failed.result()
        after.result()
        assert ledger.do(spent_so_far) == {"a": 1}


def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(InvalidInputError, match="is a database of something else"):
        Ledger(other)
    with sqlite3.connect(other) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    text = tmp_path / "text"
    text.write_text("no database at all, but a text of some length" * 40)
    with pytest.raises(InvalidInputError, match="cannot be opened as a ledger"):
        Ledger(text)
    with pytest.raises(InvalidInputError, match="cannot be opened as a ledger"):
        Ledger(tmp_path / "no" / "folder")


def test_a_ledger_of_another_format_is_refused(tmp_path):
    Ledger(tmp_path / "ledger.sqlite").close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("UPDATE ledger SET format = 99")
    with pytest.raises(InvalidInputError, match="format 99, this release knows 1"):
        Ledger(tmp_path / "ledger.sqlite")


def test_calls_in_flight_when_a_process_ended_are_charged_at_their_most(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        insert = (
            "INSERT INTO attempt (run, key, candidate, sent, state, most_nanousd) VALUES (1, x'00', 'a', 0, 'sent', 70)"
        )
        ledger.do(lambda of: of.execute(insert) and None)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.do(spent_so_far) == {"a": 70}
        assert ledger.do(lambda of: of.execute("SELECT state, charged_nanousd FROM attempt").fetchall()) == [
            ("lost", 70)
        ]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.do(spent_so_far) == {"a": 70}


def test_a_closed_ledger_says_so(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.do(spent_so_far)
    ledger.close()


def test_a_disk_that_is_full_is_told(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.do(lambda of: of.execute("PRAGMA max_page_count = 1") and None)
        many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9999) INSERT INTO spent SELECT x, x FROM n"
        with pytest.raises(LedgerError, match="cannot be written"):
            ledger.do(lambda of: of.execute(many) and None)
        assert ledger.do(spent_so_far) == {}


def test_work_that_is_given_up_is_not_done_and_the_next_is(tmp_path):
    waiting = threading.Event()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.submit(lambda of: waiting.wait())
        given_up = ledger.submit(lambda of: add_spent(of, "a", 1))
        assert given_up.cancel()
        waiting.set()
        assert ledger.do(spent_so_far) == {}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_ledger_that_is_removed_or_replaced_is_told(tmp_path, replaced):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.do(lambda of: add_spent(of, "a", 1))
        for file in tmp_path.iterdir():
            file.unlink()
        if replaced:
            (tmp_path / "ledger.sqlite").touch()
        for _ in range(2):
            with pytest.raises(LedgerError, match="was moved or removed"):
                ledger.do(lambda of: add_spent(of, "a", 1))


def test_a_lent_ledger_is_another_s_until_it_is_given_back(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with ledger.lent() as path:
            with pytest.raises(LedgerError, match="is closed"):
                ledger.do(spent_so_far)
            with Ledger(path) as other:
                other.do(lambda of: add_spent(of, "a", 7))
        assert ledger.do(spent_so_far) == {"a": 7}
        with pytest.raises(InvalidInputError, match="another process writes this ledger"), ledger.lent() as path:
            kept = Ledger(path)
    kept.close()
