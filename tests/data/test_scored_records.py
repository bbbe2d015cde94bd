"""Records joined with scores by id: the outcome of who was asked, and every row that does not join told."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest

from ipr_engine.audit import Explorer
from ipr_engine.audit.record import Record
from ipr_engine.cli.main import main
from ipr_engine.data import load_outcomes
from ipr_engine.data.importers import import_records
from ipr_engine.data.importers.scored_records import JoinReport
from ipr_engine.data.tables import BadRows
from ipr_engine.errors import InvalidInputError, KeyMismatchError
from ipr_engine.prompts import parse_request
from tests.support import skips

TEXT = "explain to the python student why this code is slow and how to write a better story"
CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": TEXT}]
PROMPTS = {"d0": TEXT, "d1": CHAT, "7": {"messages": CHAT, "max_tokens": 10}, "d3": "why is the sky so blue"}


@pytest.fixture
def log(engine, tmp_path):
    """A log of five decisions, one of them without an id, that chance had a say in; prompts are kept in clear."""
    explorer, path = Explorer(0.9, Random(4).random), tmp_path / "log.jsonl"
    with engine.recorder(path, keep_prompts=True, min_words=0) as recorder:
        for id, prompt in PROMPTS.items():
            recorder.route(prompt, tau=0.3, id=7 if id == "7" else id, draw=explorer.draw())
        recorder.route(TEXT, tau=0.3)
    return path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scores(tmp_path, *rows):
    return write(tmp_path / "scores.jsonl", rows)


def records(log):
    return {str(one.id): one for one in map(Record.from_line, log.read_bytes().splitlines())}


def test_an_outcome_is_of_who_was_asked(log, tmp_path):
    given = scores(
        tmp_path,
        {"id": "d0", "quality": 1, "output_tokens": 12, "cost_usd": 0.002},
        {"id": "d1", "quality": 0.25, "conversation": "c"},
        {"id": 7, "quality": 0.5, "conversation": "c"},
        {"id": "stranger", "quality": 1},
    )
    report = JoinReport()
    made = import_records(log, scores=given, report=report)
    kept = records(log)
    assert made.prompt_ids == ("7", "d0", "d1")
    assert made.prompts == tuple(parse_request(PROMPTS[id]).encoded for id in made.prompt_ids)
    for row, id in enumerate(made.prompt_ids):
        asked = kept[id].exploration.model
        assert [m for m, known in zip(made.models, made.covered[row], strict=True) if known] == [asked]
    assert np.nansum(made.quality) == 1.75
    assert np.nansum(made.cost_usd) == 0.002
    assert made.question_keys[0] == made.question_keys[2] != made.question_keys[1]
    explored = sum(kept[id].exploration.model != kept[id].outcome.model for id in made.prompt_ids)
    assert explored > 0
    assert report.to_dict() == {
        "records": 5, "joined": 3, "explored": explored, "unscored": 1, "strangers": 1,
        "without_id": 1, "undecided": 0, "without_prompt": 0, "sealed": 0, "conversations": 0,
    }  # fmt: skip
    assert "turns" not in report.notice


def test_prompts_of_several_turns_are_one_text_and_that_is_told(log, tmp_path):
    turns = [{"role": "user", "content": text} for text in ("why is the sky blue", "and the sea")]
    prompts = write(tmp_path / "prompts.jsonl", [{"id": "d0", "prompt": turns}, {"id": "d1", "prompt": turns[:1]}])
    report = JoinReport()
    given = scores(tmp_path, {"id": "d0", "quality": 1}, {"id": "d1", "quality": 1})
    made = import_records(log, scores=given, prompts=prompts, report=report)
    assert made.prompts[0] == "why is the sky blue\n\nand the sea"
    assert report.conversations == 1
    assert "; 1 hold several turns of a user, which are one text of the table" in report.notice


def test_who_answered_in_place_of_who_was_asked_has_the_outcome(engine, log, tmp_path):
    other = next(m for m in engine.bundle.names if m != records(log)["d0"].exploration.model)
    made = import_records(log, scores=scores(tmp_path, {"id": "d0", "quality": 1, "model": other}))
    assert made.models == (other,)
    with pytest.raises(InvalidInputError, match=r"scores.jsonl, row 1, column 'model': expected a candidate"):
        import_records(log, scores=scores(tmp_path, {"id": "d0", "quality": 1, "model": "gpt-7"}))


def test_prompts_of_a_table_go_before_those_of_records(log, tmp_path):
    prompts = write(tmp_path / "prompts.jsonl", [{"id": "d0", "prompt": "another text"}, {"id": "d9", "prompt": "x"}])
    given = scores(tmp_path, {"id": "d0", "quality": 1}, {"id": "d3", "quality": 0})
    assert import_records(log, scores=given, prompts=prompts).prompts == ("another text", PROMPTS["d3"])
    wrong = write(tmp_path / "prompts.jsonl", [{"id": "d9", "prompt": "x"}, {"id": "d0", "prompt": {"messages": 5}}])
    with pytest.raises(InvalidInputError, match=r"prompts.jsonl, row 2: prompt\['messages'\]: expected a string or"):
        import_records(log, scores=given, prompts=wrong)


def test_records_without_prompts_are_counted_and_none_with_one_is_an_error(engine, log, tmp_path):
    bare = tmp_path / "bare.jsonl"
    with engine.recorder(bare) as recorder:
        recorder.route(TEXT, tau=0.3, id="b0")
    given = scores(tmp_path, {"id": "d0", "quality": 1}, {"id": "b0", "quality": 1})
    both = tmp_path / "both.jsonl"
    both.write_bytes(log.read_bytes() + bare.read_bytes())
    report = JoinReport()
    import_records(both, scores=given, report=report)
    assert (report.joined, report.without_prompt) == (1, 1)
    with pytest.raises(
        InvalidInputError, match=r"none of 1 scored records has a prompt; write records with keep_prompts"
    ):
        import_records(bare, scores=given)


def test_sealed_prompts_need_their_key(engine, tmp_path):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    log, given = tmp_path / "log.jsonl", scores(tmp_path, {"id": "s0", "quality": 1})
    with engine.recorder(log, keep_prompts=True, key=bytes(range(32))) as recorder:
        recorder.route(TEXT, tau=0.3, id="s0")
    assert import_records(log, scores=given, key=bytes(range(32))).prompts == (TEXT,)
    with pytest.raises(InvalidInputError, match="none of 1 scored records has a prompt; give the key that seals them"):
        import_records(log, scores=given)
    another = bytes(range(1, 33))
    with pytest.raises(KeyMismatchError, match=r"log.jsonl, line 1: key: the record was sealed under the key"):
        import_records(log, scores=given, key=another)
    prompts = write(tmp_path / "prompts.jsonl", [{"id": "s0", "prompt": "known elsewhere"}])
    assert import_records(log, scores=given, prompts=prompts, key=another).prompts == ("known elsewhere",)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"id": "d0", "quality": 1.5}], "scores.jsonl, row 1, column 'quality': expected a number in [0, 1]"),
        ([{"id": "d0", "quality": -0.1}], "row 1, column 'quality': expected a number in [0, 1]"),
        ([{"id": "d0", "quality": "good"}], "row 1, column 'quality': expected a number"),
        ([{"id": "d0", "quality": 1, "cost_usd": -1}], "row 1, column 'cost_usd': expected a finite number >= 0"),
        ([{"id": "d0", "quality": 1}, {"id": "d0", "quality": 0}], "row 2, column 'id': expected each id once, 'd0' stands 2 times"),
        ([{"id": "d0", "quality": 1}, {"quality": 0}], "row 2, column 'id': expected the id of a record, it is missing"),
    ],
)  # fmt: skip
def test_bad_scores_are_refused_with_their_row_and_left_out_where_asked(log, tmp_path, rows, told):
    given = scores(tmp_path, {"id": "d3", "quality": 1}, *rows)
    number = int(told.partition("row ")[2].partition(",")[0])
    with pytest.raises(InvalidInputError) as refused:
        import_records(log, scores=given)
    assert told.replace(f"row {number}", f"row {number + 1}") in str(refused.value)
    bad = BadRows(skip=True)
    assert "d3" in import_records(log, scores=given, bad=bad).prompt_ids
    assert len(bad) == (2 if "2 times" in told else 1)


def test_damaged_lines_and_ids_that_stand_twice_are_refused_with_their_line(log, tmp_path):
    given = scores(tmp_path, {"id": "d0", "quality": 1}, {"id": "d3", "quality": 1})
    lines = log.read_bytes().splitlines(keepends=True)
    broken = lines[3].replace(b'"billed_tokens":', b'"billed_tokens":1', 1)
    log.write_bytes(b"".join([*lines[:3], broken, *lines[4:]]))
    with pytest.raises(InvalidInputError, match=r"log.jsonl, line 4: crc32: expected that of the line"):
        import_records(log, scores=given)
    bad = BadRows(skip=True)
    assert import_records(log, scores=given, bad=bad).prompt_ids == ("d0",)
    log.write_bytes(b"".join([*lines, lines[0]]))
    with pytest.raises(InvalidInputError, match=r"log.jsonl, line 6: expected each id once, 'd0' stands 2 times"):
        import_records(log, scores=given)
    bad = BadRows(skip=True)
    assert import_records(log, scores=given, bad=bad).prompt_ids == ("d3",)
    assert len(bad) == 2


def test_ids_of_another_log_are_told(log, tmp_path):
    given = scores(tmp_path, {"id": "x", "quality": 1})
    with pytest.raises(
        InvalidInputError, match=r"scores.jsonl: none of its 1 ids is that of a record of log.jsonl \(5 rec"
    ):
        import_records(log, scores=given)


def test_the_command_writes_tables_and_tells_what_joined(log, tmp_path, capsys):
    given = scores(tmp_path, {"id": "d0", "quality": 1}, {"id": "d3", "quality": 0}, {"id": "x", "quality": 0})
    out = tmp_path / "out"
    asked = ["data", "import", "records", str(log), str(out), "--scores", str(given), "--format", "jsonl", "--json"]
    assert main(asked) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert (told["join"]["joined"], told["join"]["strangers"], told["outcomes"]) == (2, 1, 2)
    assert "2 of 5 records joined" in printed.err
    listed = ", ".join(map(repr, load_outcomes(out).models))
    assert (
        f"`ipr train` wants --candidates beside these tables: a file of family, provider and prices of {listed}"
        in printed.err
    )
    assert TEXT not in printed.err
    assert load_outcomes(out).prompts == (PROMPTS["d0"], PROMPTS["d3"])


def test_flags_of_records_are_refused_elsewhere_and_scores_are_needed(log, tmp_path, capsys):
    assert main(["data", "import", "records", str(log), str(tmp_path / "out")]) == 1
    assert "--scores: is missing" in capsys.readouterr().err
    assert main(["data", "import", "wide", str(log), str(tmp_path / "out"), "--scores", "s.csv"]) == 1
    assert "--scores: is for the layout records" in capsys.readouterr().err
