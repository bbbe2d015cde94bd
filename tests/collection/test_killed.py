"""A collection that is killed goes on where it stood: nothing is lost but what was in flight, and nothing else is paid twice."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from ipr_engine.collection.collect import collect
from ipr_engine.collection.ledger import LEDGER
from tests.support.collections import plan_for, questions
from tests.support.places import ROOT

PROMPTS, AT_A_TIME = 400, 8
_RUN = """
import sys
from pathlib import Path
from ipr_engine.collection.collect import collect
from tests.support.collections import candidate, plan_for, questions
collect(plan_for(Path(sys.argv[1]), sys.argv[2], candidate("slow-0.02")), questions({prompts}, sys.argv[3]))
"""


def collecting(folder, server, text):
    return subprocess.Popen(
        [sys.executable, "-c", _RUN.format(prompts=PROMPTS), str(folder), server.base_url, text],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )


def state(folder):
    with sqlite3.connect(folder / "collected" / LEDGER) as ledger:
        lost = ledger.execute("SELECT count(*) FROM attempt WHERE state IN ('lost', 'sent')").fetchone()[0]
        answers = ledger.execute("SELECT count(*) FROM answer").fetchone()[0]
        return lost, answers


@pytest.mark.slow
def test_kills_at_random_moments_pay_for_no_call_twice_but_those_in_flight(tmp_path, server):
    draw = random.Random(7)
    before = server.calls()
    kills = 0
    for _ in range(12):
        process = collecting(tmp_path, server, "Killed {}?")
        time.sleep(draw.uniform(0.3, 2.5))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert collecting(tmp_path, server, "Killed {}?").wait() == 0
    lost, answers = state(tmp_path)
    taken = server.calls() - before
    assert answers == PROMPTS
    assert len(taken) == PROMPTS
    assert sum(taken.values()) - PROMPTS <= lost <= kills * AT_A_TIME
    whole = plan_for(tmp_path / "whole", server.base_url)
    collect(whole, questions(PROMPTS, "Killed {}?"))
    for table in ("prompts.jsonl", "outcomes.jsonl"):
        with open(tmp_path / "collected" / table) as killed, open(whole.out_folder / table) as never:
            assert killed.read().replace("slow-0.02", "plain") == never.read()


def test_a_signal_lets_calls_in_flight_finish_and_the_next_run_goes_on(tmp_path, server):
    before = server.calls()
    process = collecting(tmp_path, server, "Signal {}?")
    deadline = time.monotonic() + 30
    while not (server.calls() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    lost, answers = state(tmp_path)
    assert lost == 0
    assert 0 < answers < PROMPTS
    assert collecting(tmp_path, server, "Signal {}?").wait() == 0
    assert state(tmp_path) == (0, PROMPTS)
    assert set((server.calls() - before).values()) == {1}
