"""Tables of the command line: what is drawn, how they narrow, and what a terminal gets beside a pipe."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from ipr_engine.cli import text_table
from ipr_engine.cli.collecting import SpendingLine, print_outcomes
from ipr_engine.cli.text_table import FEWEST, PIPED, Cell, Page, TextTable

STYLE = re.compile(r"\x1b\[\d+m")


def made(*rows, **options):
    table = TextTable("a title", ["name", "figure"], **options)
    for row in rows:
        table.add(*row)
    return table


def test_a_table_is_as_wide_as_what_it_holds():
    assert made(("a", "1"), ("long name", "22")).lines(80) == [
        "a title",
        "┏━━━━━━━━━━━┳━━━━━━━━┓",
        "┃ name      ┃ figure ┃",
        "┡━━━━━━━━━━━╇━━━━━━━━┩",
        "│ a         │      1 │",
        "│ long name │     22 │",
        "└───────────┴────────┘",
    ]


def test_a_table_without_rows_is_its_heading():
    assert made().lines(80)[-2:] == ["┡━━━━━━╇━━━━━━━━┩", "└──────┴────────┘"]


def test_the_widest_column_breaks_between_words():
    lines = made(("one two three four five", "1")).lines(30)
    assert lines[4:6] == ["│ one two three     │      1 │", "│ four five         │        │"]
    assert all(len(line) <= 30 for line in lines)


def test_the_column_to_cut_ends_in_an_ellipsis():
    lines = made(("one two three four five", "1"), cut=0).lines(30)
    assert lines[4] == "│ one two three fo… │      1 │"
    assert len(lines) == 6


def test_the_column_to_cut_gets_the_room_that_headings_leave():
    table = TextTable("a title", ["name", "a figure of several words"], cut=0)
    table.add("one two three four five", "1")
    assert "│ one two three four five │ " in table.lines(37)[-2]
    assert "│ one two three four fi… │ " in table.lines(36)[-2]
    assert {len(line) for line in table.lines(36)[1:]} == {36}


def test_a_word_wider_than_its_column_is_broken():
    [first, second] = made(("x" * 20, "1")).lines(25)[4:6]
    assert first.count("x") + second.count("x") == 20


def test_no_word_is_broken_while_others_can_be_parted():
    lines = made(("one-long-candidate-name", "two words of it")).lines(37)
    assert all(len(line) <= 37 for line in lines)
    assert lines[4].startswith("│ one-long-candidate-name │ ")


def test_no_column_gets_narrower_than_the_fewest():
    [_, cell, *_] = made(("x" * 30, "y" * 30)).lines(1)[4].split("│")
    assert len(cell) == FEWEST + 2


@pytest.mark.parametrize("text", ["量子", "Erkläre", "e\u0301", "a\u200db"])
def test_columns_are_those_of_a_terminal(text):
    wide = {"量子": 4, "Erkläre": 7, "e\u0301": 1, "a\u200db": 2}[text]
    [line] = made((text, "1")).lines(80)[4:5]
    assert line == f"│ {text}{' ' * (max(4, wide) - wide)} │      1 │"
    top = made((text * 30, "1"), cut=0).lines(40)[4]
    assert top.endswith("… │      1 │")


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="cells: expected 2, one a heading, got 1"):
        made(("a",))


def test_styles_are_left_out_unless_asked_for_and_change_no_width():
    table = made(("a", Cell("outside", "yellow")))
    table.caption = "a caption"
    plain, styled = table.lines(80), table.lines(80, styled=True)
    assert [STYLE.sub("", line) for line in styled] == plain
    assert "\x1b[33moutside\x1b[0m" in styled[4]
    assert plain[-1] == "a caption"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Ascii(io.StringIO):
    encoding = "ascii"


def shown(monkeypatch, stream, environment=(), columns=80):
    """What a page prints on a stream that stands for stdout."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in dict(environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", stream)
    page = Page()
    page.table(made(("a", "1")))
    page.text("word " * 60, "bold")
    return stream.getvalue()


def test_a_pipe_gets_no_style_and_its_own_width(monkeypatch):
    text = shown(monkeypatch, io.StringIO(), columns=300)
    assert "\x1b" not in text
    assert PIPED - 5 < max(map(len, text.splitlines())) <= PIPED


def test_a_terminal_gets_styles_at_its_width(monkeypatch):
    text = shown(monkeypatch, Terminal(), columns=110)
    assert text.startswith("\x1b[3ma title\x1b[0m\n")
    assert 105 < max(len(STYLE.sub("", line)) for line in text.splitlines()) <= 110


@pytest.mark.parametrize("columns", [60, 80])
def test_prose_is_broken_where_a_terminal_ends_though_tables_may_be_wider(monkeypatch, columns):
    text = STYLE.sub("", shown(monkeypatch, Terminal(), columns=columns))
    prose = [line for line in text.splitlines() if line.startswith("word")]
    assert columns - 5 < max(map(len, prose)) <= columns


@pytest.mark.parametrize("columns", [60, 80])
def test_a_table_is_narrowed_to_its_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", Terminal())
    Page().table(made(("word " * 30, "1")))
    lines = STYLE.sub("", sys.stdout.getvalue()).splitlines()
    assert columns - 5 < max(map(len, lines)) <= columns


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=lambda pairs: next(iter(pairs)))
def test_a_terminal_without_colours_gets_no_style(monkeypatch, environment):
    assert "\x1b" not in shown(monkeypatch, Terminal(), environment)


def test_an_encoding_without_box_characters_gets_ascii(monkeypatch):
    text = shown(monkeypatch, Ascii())
    assert text.isascii()
    assert text.splitlines()[1:3] == ["+------+--------+", "| name | figure |"]


def test_lines_begin_with_the_spaces_they_were_given(capsys):
    Page().text("first\n  second\n\nlast")
    assert capsys.readouterr().out == "first\n  second\n\nlast\n"


def outcome(candidate, **lost):
    figures = {
        "answers": 1234,
        "outcomes": 1230,
        "mean_quality": 0.8,
        "mean_cost_usd": 0.0123,
        "mean_output_tokens": 1240,
    }
    return {"candidate": candidate, **figures, "truncated": 0, "refused": 0, "spent_usd": 12.3456, **lost}


def collected(capsys, monkeypatch, *candidates):
    """The lines of what `ipr collect` prints at 80 columns."""
    monkeypatch.setattr(text_table, "PIPED", 80)
    facts = {"prompts": 100, "spent_usd": 1.2, "budget_usd": 5, "judges": [], "folder": "out", "candidates": candidates}
    print_outcomes(facts)
    return capsys.readouterr().out.splitlines()


def test_outcomes_of_a_collection_fit_into_80_columns(capsys, monkeypatch):
    lines = collected(capsys, monkeypatch, outcome("gpt-4o"), outcome("claude-3-5-sonnet"))
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("│ claude-3-5-sonnet │") for line in lines)


def test_answers_that_were_cut_or_refused_have_a_column_where_there_are_any(capsys, monkeypatch):
    told = "\n".join(collected(capsys, monkeypatch, outcome("a", refused=3), outcome("b")))
    assert "refused" in told
    assert "cut" not in told


@pytest.mark.parametrize("columns", [1, 30, 41, 60, 80, 200])
def test_the_line_of_spending_is_no_wider_than_its_terminal_and_every_figure_whole(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = SpendingLine("ipr collect")
    monkeypatch.setattr(line, "_last", -1e9)
    line.tell(SimpleNamespace(answered=9, failed=1), SimpleNamespace(charged=1.5e9, reserved=2e9))
    shown = sys.stderr.getvalue().removeprefix("\r\x1b[K")
    assert len(shown) < columns or shown == "ipr collect: 9 answers"
    whole = ["ipr collect: 9 answers", "USD 1.5000 spent", "2.0000 in flight at most", "1 failed"]
    parts = shown.split(", ")
    assert parts[:4] == whole[: len(parts)]
    assert len(parts) == {1: 1, 30: 1, 41: 2, 60: 2, 80: 4, 200: 5}[columns]


@pytest.mark.parametrize("columns", [1, 30, 200])
def test_grading_is_told_now_and_then_on_one_line(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = SpendingLine("ipr collect")
    line.say("grader passes: 16 answers graded")  # too soon
    monkeypatch.setattr(line, "_last", -1e9)
    line.say("grader passes: 32 answers graded")
    line.say("grader passes: 48 answers graded")
    shown = sys.stderr.getvalue()
    assert shown == "\r\x1b[K" + "ipr collect: grader passes: 32 answers graded"[: max(1, columns - 1)]


def test_a_column_that_is_cut_keeps_room_for_its_ellipsis_beside_wide_words():
    table = TextTable("a title", ["name", "prompt"], cut=1)
    table.add("x" * 60, "a b c d e f g h i j k l")
    lines = table.lines(40)
    assert {len(line) for line in lines[1:]} == {40}
    assert lines[4].endswith("│ a b c d… │")
