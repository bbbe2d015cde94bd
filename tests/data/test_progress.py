"""The bar on stderr: where it shows, and what stays of it."""

import io
import sys

import pytest

from ipr_engine.data.progress import SHOW_FROM, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(monkeypatch, stream, steps, **options):
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("reading", steps, **options) as progress:
        for _ in range(4):
            progress.advance(steps // 4)
    return stream.getvalue()


def test_a_pipe_gets_the_last_state_alone(monkeypatch):
    assert run(monkeypatch, io.StringIO(), SHOW_FROM) == ""
    assert run(monkeypatch, io.StringIO(), 8, verbose=True) == f"reading [{'#' * 40}] 100% 0 s\n"


def test_a_terminal_gets_a_bar_for_long_work_that_leaves_nothing(monkeypatch):
    text = run(monkeypatch, Terminal(), SHOW_FROM)
    assert text.startswith("\r\x1b[Kreading [")
    assert text.endswith("\r\x1b[K")
    assert run(monkeypatch, Terminal(), SHOW_FROM - 1) == ""


def test_a_terminal_keeps_the_last_state_when_asked_for(monkeypatch):
    assert run(monkeypatch, Terminal(), 8, verbose=True).endswith("100% 0 s\n")


def test_work_of_no_step_is_done(monkeypatch):
    assert "100%" in run(monkeypatch, io.StringIO(), 0, verbose=True)


def test_work_that_fails_shows_how_far_it_came(monkeypatch):
    def fail():
        with Progress("reading", 10, verbose=True) as progress:
            progress.advance(5)
            raise ValueError("half way")

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(ValueError, match="half way"):
        fail()
    assert " 50% " in stream.getvalue()
