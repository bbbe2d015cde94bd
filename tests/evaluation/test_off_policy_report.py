"""Other policies on scored records of a server with exploration: the truth is known, and the intervals hold it."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.audit import Explorer
from ipr_engine.audit.record import Record
from ipr_engine.cli.main import main
from ipr_engine.data import load_outcomes
from ipr_engine.evaluation.logged_decisions import LoggedDecisions
from ipr_engine.evaluation.off_policy_report import off_policy_report
from tests.support import skips
from tests.support.bundles import make_bundle
from tests.support.local_server import LocalServer
from tests.support.seeds import seeded

pytest.importorskip("uvicorn", reason=skips.SERVE)
pytest.importorskip("cryptography", reason=skips.RECORDS)
NAMES = ("gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "gemini-1.5-flash", "llama-3.1-8b-instruct")
SHARE, ROWS, FIRST, TAU, OTHER = 0.3, 500, 400, 0.1, 0.7
EASY = "What is {a} plus {b}? Tell the number alone and show nothing of how it was found, please."
HARD = "Prove that for every prime p above {a} the group of units modulo p to the {b} is cyclic, then count its generators."


def prompt_of(number: int) -> str:
    return (EASY, HARD)[number % 2].format(a=number + 10, b=number % 89 + 2)


def chances(number: int) -> np.ndarray:
    """The true chance of a right answer of each candidate."""
    return np.array([0.95, 0.9, 0.85, 0.8]) if number % 2 == 0 else np.array([0.9, 0.6, 0.4, 0.1])


@pytest.fixture(scope="module")
def log(default_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with key, records and scores of a server's traffic; first.jsonl and then.jsonl are its parts."""
    folder, rng = tmp_path_factory.mktemp("production"), seeded("production")
    (folder / "k.key").write_text(bytes(range(32)).hex())
    records = {"path": str(folder / "log.jsonl"), "key": str(folder / "k.key"), "keep_prompts": True, "keep_x": True}
    config = {"policy": {"tau": TAU, "allowed": list(NAMES)}, "exploration": SHARE, "records": records}
    with LocalServer(default_engine, config) as server:
        server.state.decider.explorer = Explorer(SHARE, Random(11).random)
        replies = [server.post("/v1/route", {"prompt": prompt_of(number)}).body for number in range(ROWS)]
    rows = []
    for number, reply in enumerate(replies):
        good = float(rng.random() < chances(number)[NAMES.index(reply["model"])])
        usd = reply["cost_usd"] * float(np.exp(0.3 * rng.standard_normal() - 0.045))
        rows.append({"id": reply["id"], "quality": good, "output_tokens": int(rng.integers(20, 400)), "cost_usd": usd})
    write(folder / "scores.jsonl", rows)
    lines = (folder / "log.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "first.jsonl").write_bytes(b"".join(lines[:FIRST]))
    (folder / "then.jsonl").write_bytes(b"".join(lines[FIRST:]))
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scores_of(log):
    return [json.loads(line) for line in (log / "scores.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(log):
    """What is said of the other tau, on the whole log."""
    return asked(log, "--tau", str(OTHER))


def asked(log, *arguments, records="log.jsonl", scores=None, status=0):
    """What the command says, as JSON; its error where it fails."""
    out, err = io.StringIO(), io.StringIO()
    given = log / "scores.jsonl" if scores is None else scores
    command = ["off-policy", str(log / records), "--scores", str(given), "--key", str(log / "k.key"), "--json"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([*command, *arguments]) == status
    return err.getvalue() if status else json.loads(out.getvalue())


def truth(engine, tau, numbers=range(ROWS)):
    """The true mean quality of a policy on the prompts of the log, and of its expected cost."""
    policy = engine.policy(tau=tau, allowed=[name for name in NAMES if name in engine.bundle.names])
    made = [(number, engine.route(prompt_of(number), policy)) for number in numbers]
    quality = [chances(number)[NAMES.index(decision.model)] for number, decision in made]
    return float(np.mean(quality)), float(np.mean([decision.cost_usd for _, decision in made]))


def holds(interval, value, margin=0.0):
    return interval["low"] - margin <= value <= interval["high"] + margin


def test_intervals_hold_the_truth_of_another_tau_and_its_difference(log, default_engine, alone):
    made = alone
    now, then = truth(default_engine, OTHER), truth(default_engine, TAU)
    quality = made["quality"]
    assert (made["rows"], made["records"], made["left_out"], made["refused"]) == (ROWS, ROWS, {}, {})
    assert made["by_recorded_figures"] == 0
    assert abs(now[0] - then[0]) > 0.05
    for name in ("ips", "dr"):
        assert holds(quality["target"][name], now[0])
        assert holds(quality["recorded"][name], then[0])
        assert holds(quality["difference"][name], now[0] - then[0])
        assert holds(made["billed_usd"]["target"][name], now[1])
        assert holds(made["billed_usd"]["difference"][name], now[1] - then[1])
    ran = np.mean([row["quality"] for row in scores_of(log)])
    assert quality["log"]["value"] == pytest.approx(ran)
    assert made["expected_usd"]["target"] == pytest.approx(now[1], rel=1e-5)
    assert made["expected_usd"]["recorded"] == pytest.approx(then[1], rel=1e-5)
    assert made["warnings"] == []
    assert made["mean_weight"] == pytest.approx(1.0, abs=0.3)


def test_the_recorded_policy_itself_changes_nothing(log):
    made = asked(log)
    assert made["choices_changed"] == 0
    assert made["quality"]["target"] == made["quality"]["recorded"]
    assert {str(end) for end in made["quality"]["difference"]["ips"].values()} == {"0.0"}


def test_outcomes_of_one_part_train_a_bundle_that_the_other_part_judges(log, tmp_path):
    pytest.importorskip("threadpoolctl", reason=skips.TRAIN)
    mine, key = tmp_path / "mine", ["--key", str(log / "k.key")]
    joined = ["data", "import", "records", str(log / "first.jsonl"), str(mine), "--scores", str(log / "scores.jsonl")]
    assert main([*joined, *key, "--format", "jsonl"]) == 0
    outcomes = load_outcomes(mine)
    assert (len(outcomes), int(outcomes.covered.sum())) == (FIRST, FIRST)
    assert set(outcomes.models) == set(NAMES)
    shares = ["--shares", "train=0.9,test=0.1", "--format", "jsonl"]
    assert main(["data", "split", str(mine), str(tmp_path / "split"), *shares]) == 0
    candidates = [
        {"name": name, "family": "mine", "provider": "p", "input_usd_per_1m": 5.0 / 2**m, "output_usd_per_1m": 15.0 / 2**m}
        for m, name in enumerate(NAMES)
    ]  # fmt: skip
    (tmp_path / "candidates.json").write_text(json.dumps({"date": "2026-11-29", "candidates": candidates}))
    fitted = ["--outcomes", str(tmp_path / "split"), "--candidates", str(tmp_path / "candidates.json")]
    assert main(["train", *fitted, "--out", str(tmp_path / "root"), "--allow-constant"]) == 0
    made = asked(log, "--bundle", str(tmp_path / "root"), "--tau", "0.3", records="then.jsonl")
    now = truth(Engine.load(tmp_path / "root"), 0.3, range(FIRST, ROWS))
    assert made["rows"] == ROWS - FIRST
    assert made["by_recorded_figures"] == 0
    for name in ("ips", "dr"):
        assert holds(made["quality"]["target"][name], now[0])
    assert not any("fitted on" in one for one in made["warnings"])
    asked_of_own = asked(log, "--bundle", str(tmp_path / "root"), "--tau", "0.3", records="first.jsonl")
    assert any(
        "of 400 prompts are among those that these heads were fitted on" in one for one in asked_of_own["warnings"]
    )
    without = asked(log, "--bundle", str(tmp_path / "root"), "--tau", "0.3", "--no-predictions", records="first.jsonl")
    assert not any("fitted on" in one for one in without["warnings"])


def test_records_without_chance_are_refused_alone_and_counted_among_others(log, default_engine, alone, tmp_path):
    bare, rows = tmp_path / "bare.jsonl", scores_of(log)
    with default_engine.recorder(bare, keep_x=True, key=bytes(range(32))) as recorder:
        for number in range(30):
            recorder.route(prompt_of(number), tau=TAU, allowed=list(NAMES), id=f"b{number}")
    scores = write(tmp_path / "scores.jsonl", [*rows, *({"id": f"b{number}", "quality": 1} for number in range(30))])
    said = asked(tmp_path, "--key", str(log / "k.key"), records="bare.jsonl", scores=scores, status=1)
    assert "records: none with a score has a propensity, 30 were decided without chance" in said
    both = tmp_path / "both.jsonl"
    both.write_bytes((log / "log.jsonl").read_bytes() + bare.read_bytes())
    made = asked(tmp_path, "--key", str(log / "k.key"), "--tau", str(OTHER), records="both.jsonl", scores=scores)
    assert made["left_out"] == {"chance had no say: without exploration": 30}
    assert made["quality"] == alone["quality"]


def test_what_cannot_be_told_is_left_out_for_its_reason(log, tmp_path):
    rows = scores_of(log)
    kept = {one.id: one for one in map(Record.from_line, (log / "log.jsonl").read_bytes().splitlines())}
    other = next(name for name in NAMES if name != kept[rows[0]["id"]].exploration.model)
    rows[0]["model"] = other
    rows[1]["model"] = kept[rows[1]["id"]].exploration.model
    rows[2]["quality"] = None
    made = asked(log, "--tau", str(OTHER), scores=write(tmp_path / "s.jsonl", [*rows[:-1], {"id": "x", "quality": 1}]))
    assert made["left_out"] == {"without a score": 2, "another candidate answered than was asked": 1}
    assert any("another candidate answered" in one for one in made["warnings"])
    rows[3]["model"] = "gpt-7"
    said = asked(log, scores=write(tmp_path / "s.jsonl", rows), status=1)
    assert "s.jsonl, row 4, column 'model': expected a candidate of the record" in said
    # one policy asks a candidate that nobody was sent to
    stranger = asked(log, "--allow", "gemini-1.5-pro", "--tau", "0.5", status=1)
    assert "the candidate chosen now was not eligible" in stranger


def test_scores_that_depend_on_who_was_asked_are_told(log, tmp_path):
    kept = {one.id: one for one in map(Record.from_line, (log / "log.jsonl").read_bytes().splitlines())}
    chosen = [row for row in scores_of(log) if kept[row["id"]].exploration.model == kept[row["id"]].outcome.model]
    made = asked(log, scores=write(tmp_path / "s.jsonl", chosen))
    assert any("standard errors from 1" in one for one in made["warnings"])


def test_turns_of_a_conversation_are_one_draw(log, alone, tmp_path):
    rows = [{**row, "conversation": f"c{at // 4}"} for at, row in enumerate(scores_of(log))]
    made = asked(log, "--tau", str(OTHER), scores=write(tmp_path / "s.jsonl", rows))
    assert (made["rows"], made["draws"]) == (ROWS, ROWS // 4)
    assert made["quality"]["target"]["ips"]["value"] == pytest.approx(alone["quality"]["target"]["ips"]["value"])


def test_what_a_candidate_costs_that_the_bundle_of_now_does_not_have_is_not_known():
    rows, every = 40, np.arange(40)
    expected = np.full((rows, 2), np.nan)  # the second column is a candidate that was recorded and is gone
    expected[:, 0] = 0.25
    made = LoggedDecisions(
        models=("here", "gone"), scores=np.ones(rows), propensity=np.full(rows, 0.5), logged=every % 2,
        target=np.zeros(rows, int), recorded=np.ones(rows, int), predicted=np.zeros((rows, 2)), expected_usd=expected,
        cost_usd=np.ones(rows), texts=(None,) * rows, groups=every, left_out=Counter(), refused=Counter(), records=rows, by_figures=0,
    )  # fmt: skip
    report = off_policy_report(made)
    assert report.to_dict()["expected_usd"] == {"target": 0.25, "recorded": None}
    assert "predicted USD per 1,000: 250.0000, recorded policy not known" in str(report)
    assert report.billed_usd is not None
    assert report.billed_usd.recorded.dr is not None


def test_without_predictions_there_is_no_doubly_robust_estimate(log):
    made = asked(log, "--tau", str(OTHER), "--no-predictions")
    assert made["quality"]["target"]["dr"] is None
    assert made["quality"]["difference"]["dr"] is None


def test_damage_is_refused_with_its_line_and_left_out_where_asked(log, tmp_path):
    lines = (log / "log.jsonl").read_bytes().splitlines(keepends=True)
    broken = lines[3].replace(b'"billed_tokens":', b'"billed_tokens":1', 1)
    (tmp_path / "log.jsonl").write_bytes(b"".join([*lines[:3], broken, *lines[4:], lines[0]]))
    (tmp_path / "k.key").write_text(bytes(range(32)).hex())
    said = asked(tmp_path, scores=log / "scores.jsonl", status=1)
    assert "log.jsonl, line 4: crc32" in said
    assert f"log.jsonl, line {ROWS + 1}: expected each id once" in said
    made = asked(tmp_path, "--skip-bad-rows", scores=log / "scores.jsonl")
    assert (made["rows"], made["skipped_rows"]) == (ROWS - 2, 3)


def test_too_few_rows_are_refused(log, tmp_path):
    said = asked(log, scores=write(tmp_path / "s.jsonl", scores_of(log)[:9]), status=1)
    assert "expected at least 10 that can be used, got 9 of 500" in said


def test_why_rows_are_not_decided_again_is_told_where_none_remains(log, tmp_path, capsys):
    other = make_bundle(tmp_path)
    given = ["--scores", str(log / "scores.jsonl"), "--bundle", str(other)]
    assert main(["off-policy", str(log / "log.jsonl"), *given]) == 1
    assert f"got 0 of {ROWS}; {ROWS} not decided again: " in capsys.readouterr().err


def test_the_text_tells_policies_side_by_side(log, capsys):
    given = ["--scores", str(log / "scores.jsonl"), "--key", str(log / "k.key"), "--tau", str(OTHER)]
    assert main(["off-policy", str(log / "log.jsonl"), *given]) == 0
    printed = capsys.readouterr()
    for part in ("this policy", "recorded policy", "difference", "the log as it ran", "mean weight", "predicted USD"):
        assert part in printed.out
    assert max(map(len, printed.out.splitlines())) < 80
    assert "fitted on other data than these scores" in printed.err
    assert "Prove that" not in printed.out + printed.err
