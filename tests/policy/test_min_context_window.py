"""A policy may ask for a context window."""

import json

from ipr_engine import Engine
from ipr_engine.cli import main


def test_candidates_with_a_smaller_window_are_left_out_with_the_reason():
    policy = Engine.load().policy(tau=0.2, min_context_window=150_000)
    assert policy.exclusions["gpt-4o-2024-08-06"] == "context window of 128000 tokens, under 150000"


def test_the_command_line_and_records_know_it(tmp_path, capsys):
    assert main(["route", "--min-context-window", "150000", "--json", "--record", str(tmp_path / "log"), "hi"]) == 0
    assert "claude" in capsys.readouterr().out
    assert json.loads((tmp_path / "log").read_text())["terms"]["min_context_window"] == 150_000
