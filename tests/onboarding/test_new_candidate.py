"""`ipr add-model --plan` adds a candidate from chosen prompts: what it asks, what it costs, what it certifies, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.adding_numbers import CREATED, plan, run_add_model, run_init, write_work
from tests.support.paid_server import PaidServer
from tests.support.skips import COLLECT, GRADE, TRAIN

pytest.importorskip("openai", reason=COLLECT)
pytest.importorskip("aiolimiter", reason=COLLECT)
pytest.importorskip("regex", reason=GRADE)
pytest.importorskip("threadpoolctl", reason=TRAIN)

import yaml

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.calibration.calibrate import calibrate
from ipr_engine.cli.main import main
from ipr_engine.onboarding import new_candidate
from ipr_engine.training.add.add_model import add_model
from ipr_engine.training.add.interface import Added


@pytest.fixture(scope="module")
def paid(tmp_path_factory):
    with PaidServer(tmp_path_factory.mktemp("paid") / "taken") as running:
        yield running


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A bundle of three candidates that add numbers of at most so many digits, its table, and the prompts with references."""
    return write_work(tmp_path_factory.mktemp("work"))


def test_one_command_goes_from_a_name_to_a_bundle_with_it(work, paid, tmp_path, capsys):
    file = plan(work, paid.base_url)
    counts = ("--choose", "60", "--certify", "40", "--json", "--out", str(tmp_path / "out"))
    assert run_add_model(work, file, *counts) == 0
    dry = json.loads(capsys.readouterr().out)
    assert not dry["sent"]
    assert not paid.calls()
    assert (dry["estimate"]["chosen"], dry["estimate"]["to_certify"]) == (60, 40)
    assert dry["estimate"]["minutes"] == pytest.approx(100 / 6000)
    assert run_add_model(work, file, *counts, "--yes") == 0
    made = json.loads(capsys.readouterr().out)
    assert sum(paid.calls().values()) == 100
    assert made["collected"]["spent_usd"] <= sum(one["most_usd"] for one in dry["estimate"]["candidates"]) <= 5
    assert (made["fitted_on"], made["added"]["prompts"], made["added"]["imputed"]) == (60, 60, 200)
    assert made["seconds"] >= made["asked_s"] > 0
    assert made["serve"].startswith(f"ipr serve --bundle {tmp_path / 'out'}")
    before, after = Bundle.load(work / "root"), Bundle.load(tmp_path / "out")
    assert after.names == (*before.names, "new")
    for name, tensor in before.quality_heads.tensors.items():
        if name != "trunk":
            np.testing.assert_array_equal(after.quality_heads.tensors[name][:-1], tensor)
    engine = Engine.load(tmp_path / "out")
    easy, hard = (engine.route(f"Please add the numbers {n} and 12 and tell the sum.", tau=0.2) for n in (7, 9876543))
    assert easy.qualities[-1] > hard.qualities[-1]
    assert made["certified"] == ("--rule calibrated" in made["serve"])
    assert made["certified"] or made["why_not"]
    helps = after.provenance["added"]["new"]["help"]
    assert made["added"]["help"] == helps
    assert helps["verdict"] in ("helps", "harms", "not told")
    in_text = [one for one in counts if one != "--json"]
    assert run_add_model(work, file, *in_text, "--yes") == 0  # again: nothing is paid twice
    assert sum(paid.calls().values()) == 100
    assert re.search(r"new (helps|harms) routing|new\s+helps\s+routing\s+is\s+not\s+told", capsys.readouterr().out)


def test_the_promise_is_tested_on_prompts_that_no_row_was_fitted_on(work, paid, tmp_path, capsys):
    file = plan(work, paid.base_url, name="tested")
    assert (
        run_add_model(
            work,
            file,
            "--choose",
            "40",
            "--draw",
            "contested",
            "--certify",
            "30",
            "--yes",
            "--json",
            "--out",
            str(tmp_path / "out"),
        )
        == 0
    )
    made = json.loads(capsys.readouterr().out)
    assert made["certified_on"] == 30
    for calibration in Bundle.load(tmp_path / "out").calibrations:
        assert calibration.sample.prompts == 30


def test_without_prompts_to_test_it_on_nothing_is_certified(work, paid, tmp_path, capsys):
    file = plan(work, paid.base_url, name="untested")
    assert (
        run_add_model(work, file, "--choose", "40", "--certify", "0", "--yes", "--json", "--out", str(tmp_path / "out"))
        == 0
    )
    made = json.loads(capsys.readouterr().out)
    assert (made["certified"], made["certified_on"]) == (False, 0)
    assert "not certified: no prompts were to be asked" in made["report"]
    assert "calibrated" not in made["serve"]


def test_the_cap_of_the_plan_holds(work, paid, tmp_path, capsys):
    file = plan(work, paid.base_url, name="capped", budget=0.0003)
    before = sum(paid.calls().values())
    given = ("--choose", "60", "--certify", "40", "--yes", "--json", "--out", str(tmp_path / "out"))
    assert run_add_model(work, file, *given) == 3
    told = capsys.readouterr()
    assert "the budget of USD 0.0003 is spent" in told.err
    assert "nothing is added to the bundle" in told.err
    facts = json.loads(told.out)
    assert (facts["sent"], facts["bundle"]) == (True, None)
    assert facts["collected"]["spent_usd"] <= 0.0003
    assert not (tmp_path / "out").exists()
    assert sum(paid.calls().values()) - before < 100


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--choose", "19"), "choose: expected an int >= 20"),
        (("--draw", "best"), "draw: expected one of random, contested"),
        (("--certify", "-1"), "certify: expected an int >= 0"),
        (("--tau", "1"), "tau: expected a number between 0 and 1"),
        (("--certify-split", "train"), "a split to fit on that is not 'train'"),
        (("--split", "nowhere"), "got 0 (its splits: 'calibration', 'test', 'train')"),
        (("--candidates", "x.json"), "--candidates: has no effect beside --plan"),
        (("--like", "big"), "--like: has no effect beside --plan"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_sent(work, paid, capsys, more, message):
    before = paid.calls()
    assert run_add_model(work, plan(work, paid.base_url, name="wrong"), *more, "--yes") == 1
    assert message in capsys.readouterr().err
    assert paid.calls() == before


def test_a_candidate_that_the_bundle_has_is_not_asked(work, paid, capsys):
    assert run_add_model(work, plan(work, paid.base_url, name="big"), "--yes") == 1
    assert "candidates[0].name: 'big' is in the bundle already" in capsys.readouterr().err


def test_a_candidate_that_is_asked_no_more_is_not_added_from_a_part_of_the_draw(work, paid, tmp_path, capsys):
    file = plan(work, paid.base_url, name="failed")
    file.write_text(file.read_text().replace("adding-5", "failing"))
    assert run_add_model(work, file, "--choose", "60", "--yes", "--json", "--out", str(tmp_path / "out")) == 3
    told = capsys.readouterr()
    assert "failed was asked no more" in told.err
    assert json.loads(told.out)["bundle"] is None
    assert not (tmp_path / "out").exists()


def table_of(work, folder, prompts=lambda line: line, more=()):
    """A table like that of `work`, its prompts changed, with outcomes more."""
    folder.mkdir()
    lines = [json.loads(line) for line in (work / "table/prompts.jsonl").read_text().splitlines()]
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(prompts(line))}\n" for line in lines))
    added = "".join(f"{json.dumps(line)}\n" for line in more)
    (folder / "outcomes.jsonl").write_text((work / "table/outcomes.jsonl").read_text() + added)
    return "--outcomes", str(folder)


def test_outcomes_that_the_table_has_are_not_replaced(work, paid, tmp_path, capsys):
    had = {"prompt_id": "q000", "model": "had", "quality": 1.0, "input_tokens": 20, "output_tokens": 6}
    table, before = table_of(work, tmp_path / "table", more=[had]), paid.calls()
    assert run_add_model(work, plan(work, paid.base_url, name="had"), *table, "--yes") == 1
    assert "candidates[0].name: 'had' has outcomes in table already" in capsys.readouterr().err
    assert paid.calls() == before


def test_prompts_that_heads_have_seen_are_not_paid_for_to_certify(work, paid, tmp_path, capsys):
    def moved(line):
        return line | ({"split": "calibration"} if line["prompt_id"] < "q040" else {})

    table = table_of(work, tmp_path / "table", moved)
    given = (*table, "--choose", "40", "--certify", "200", "--yes", "--json", "--out", str(tmp_path / "out"))
    assert run_add_model(work, plan(work, paid.base_url, name="unseen"), *given) == 0
    told = capsys.readouterr()
    assert "40 prompts of the split to certify are left out: heads have seen them" in told.err
    made = json.loads(told.out)
    assert (made["certified_on"], made["unanswered"]) == (100, 0)
    assert made["why_not"] is None or "are among those" not in made["why_not"]


def test_a_prompt_that_stands_twice_is_evidence_once(work, paid, tmp_path, capsys):
    lines = [json.loads(line) for line in (work / "table/prompts.jsonl").read_text().splitlines()]
    text = {line["prompt_id"]: line["prompt"] for line in lines}

    def doubled(line):
        number = int(line["prompt_id"][1:])
        again = 300 <= number < 360 and number % 2
        return line | ({"prompt": text[f"q{number - 1:03d}"]} if again else {})

    table = table_of(work, tmp_path / "table", doubled)
    assert run_add_model(work, plan(work, paid.base_url, name="twice"), *table, "--json") == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["to_certify"] == 70


def test_a_bundle_without_hashes_is_certified_on_nothing_that_is_paid(work, paid, tmp_path, capsys):
    (tmp_path / "models.yaml").write_text("prices_date: '2026-11-24'\ncandidates: [gpt-4o-mini, gpt-4o]\n")
    assert main(["init", "--offline", "--models", str(tmp_path / "models.yaml"), "--out", str(tmp_path / "off")]) == 0
    renamed = (
        (work / "table/outcomes.jsonl").read_text().replace('"big"', '"gpt-4o"').replace('"small"', '"gpt-4o-mini"')
    )
    table = table_of(work, tmp_path / "table")
    (tmp_path / "table/outcomes.jsonl").write_text(renamed)
    capsys.readouterr()
    given = ("--bundle", str(tmp_path / "off/bundles"), *table, "--choose", "40", "--yes", "--json")
    assert run_add_model(work, plan(work, paid.base_url, name="beside-priors"), *given) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["certified"], made["certified_on"], made["fitted_on"]) == (False, 0, 40)
    assert made["collected"]["prompts"] == 40
    assert "keeps no hashes of its fitting prompts" in made["why_not"]


def test_current_moves_once_to_what_is_certified(work, paid, tmp_path, capsys, monkeypatch):
    root = tmp_path / "root"
    shutil.copytree(work / "root", root)
    old, served = Bundle.load(root), []

    def calibrated(*given, **more):
        served.append(Bundle.load(root).hash)
        return calibrate(*given, **more)

    monkeypatch.setattr(new_candidate, "calibrate", calibrated)
    file = plan(work, paid.base_url, name="once")
    assert run_add_model(work, file, "--choose", "40", "--certify", "30", "--yes", "--json", "--bundle", str(root)) == 0
    made = json.loads(capsys.readouterr().out)
    assert served == [old.hash]
    new = Bundle.load(root)
    assert (new.hash, new.names) == (made["bundle"], (*old.names, "once"))
    assert [set(one.candidates) for one in new.calibrations] == [set(new.names)]


def test_interrupted_before_it_certifies_the_old_bundle_serves(work, paid, tmp_path, monkeypatch):
    def interrupted(*given, **more):
        raise KeyboardInterrupt

    root = tmp_path / "root"
    shutil.copytree(work / "root", root)
    old, file = Bundle.load(root), plan(work, paid.base_url, name="halfway")
    counts = ("--choose", "40", "--certify", "30", "--yes", "--json", "--bundle", str(root))
    with monkeypatch.context() as patched:
        patched.setattr(new_candidate, "calibrate", interrupted)
        assert run_add_model(work, file, *counts) == 130
    assert Bundle.load(root).hash == old.hash
    calls = paid.calls()
    assert run_add_model(work, file, *counts) == 0
    assert paid.calls() == calls
    new = Bundle.load(root)
    assert new.names == (*old.names, "halfway")
    assert [set(one.candidates) for one in new.calibrations] == [set(new.names)]


def test_what_is_certified_is_what_was_added_whatever_is_current_by_then(work, paid, tmp_path, capsys, monkeypatch):
    def added_and_rolled_back(*given, **more):
        added = add_model(*given, **more)
        without_candidate(Bundle.load(added.folder), added.candidate, root=added.folder.parent)
        return added

    monkeypatch.setattr(new_candidate, "add_model", added_and_rolled_back)
    given = ("--choose", "40", "--certify", "30", "--yes", "--json", "--out", str(tmp_path / "out"))
    assert run_add_model(work, plan(work, paid.base_url, name="raced"), *given) == 0
    bundle = Bundle.load(tmp_path / "out" / json.loads(capsys.readouterr().out)["bundle"])
    assert "raced" in bundle.names
    assert [set(made.candidates) for made in bundle.calibrations] == [set(bundle.names)]


def test_answers_without_an_outcome_and_constant_scores_are_told():
    added = Added(Path("b"), "new", 40, (), (), 1.0, 1.0, 0.0, constant="all the same", imputed=9)
    made = new_candidate.CollectedCandidate(
        bundle=Path("b"),
        added=added,
        fitted_on=40,
        certified_on=25,
        unanswered=5,
        certified=True,
        why_not=None,
        needed=[],
        seconds=1.0,
    )
    told = new_candidate.told(made, "new", 0.2)
    assert "5 answers to certify on have no outcome; the promise is not about prompts like these." in told
    assert "Its scores count as constant: all the same." in told
    assert "tau 0.2 is certified on 25 prompts" in told


def test_a_judge_s_calls_take_their_own_provider_s_time(work, paid, capsys):
    file = plan(work, paid.base_url, name="judged")
    slow = f'  paid: {{base_url: "{paid.base_url}"}}\n  slow: {{base_url: "{paid.base_url}", limits: {{requests_per_minute: 6}}}}'
    judge = "{name: j, provider: slow, model: judging, input_usd_per_1m: 1, output_usd_per_1m: 2, max_tokens: 99}"
    lines = file.read_text().replace("kind: numeric", f"kind: judge, rubric: correctness, points: 5, judge: {judge}")
    file.write_text("\n".join(slow if line.startswith("  paid:") else line for line in lines.splitlines()) + "\n")
    assert run_add_model(work, file, "--choose", "40", "--certify", "20", "--json") == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["minutes"] == pytest.approx(60 / 6)


def test_that_nothing_will_be_certified_is_told_before_anything_is_paid(work, paid, capsys):
    assert run_add_model(work, plan(work, paid.base_url, name="dry"), "--certify-split", "nowhere") == 0
    assert "nothing will be certified: no prompt of split 'nowhere'" in capsys.readouterr().err


def test_beside_a_prior_nothing_is_certified_and_that_is_told_before_anything_is_paid(work, paid, tmp_path, capsys):
    root, file = tmp_path / "root", tmp_path / "prior.json"
    shutil.copytree(work / "root", root)
    facts = {"name": "guess", "family": "f", "provider": "p", "input_usd_per_1m": 1, "output_usd_per_1m": 1}
    file.write_text(json.dumps({"date": CREATED, "candidates": [facts]}))
    assert main(["add-model", "--bundle", str(root), "--candidates", str(file), "--created", CREATED]) == 0
    assert run_add_model(work, plan(work, paid.base_url, name="beside"), "--bundle", str(root)) == 0
    told = capsys.readouterr().err
    assert "0 drawn to certify" in told
    assert "nothing will be certified: what a prior decides is not certified" in told
    assert "no outcomes of their own: guess" in told


def test_taken_out_again_it_goes_on_from_the_answers_that_are_paid_for(work, paid, tmp_path, capsys):
    file, root = plan(work, paid.base_url, name="again"), tmp_path / "root"
    shutil.copytree(work / "root", root, symlinks=True)
    given = ("--bundle", str(root), "--choose", "40", "--yes", "--json")
    assert run_add_model(work, file, *given, "--certify", "30") == 0
    before = sum(paid.calls().values())
    assert run_add_model(work, file, *given, "--certify", "50") == 1
    assert "`ipr remove-model` takes it out" in capsys.readouterr().err
    assert main(["remove-model", "again", "--bundle", str(root)]) == 0
    capsys.readouterr()
    assert run_add_model(work, file, *given, "--certify", "50") == 0
    assert json.loads(capsys.readouterr().out)["certified_on"] == 50
    assert sum(paid.calls().values()) - before == 20


def test_its_answers_are_not_paid_again_by_an_init_that_is_told_where_they_are(work, paid, tmp_path, capsys):
    file = plan(work, paid.base_url, name="shared")
    given = ("--choose", "40", "--certify", "0", "--yes", "--out", str(tmp_path / "out"))
    assert run_add_model(work, file, *given) == 0
    assert "name that folder in `ledgers`" in " ".join(capsys.readouterr().out.split())
    models = yaml.safe_load(file.read_text())
    for key in ("prompts", "budget_usd", "out"):
        del models[key]
    (work / "models.yaml").write_text(yaml.safe_dump(models | {"ledgers": ["collected-shared"]}))
    assert run_init(work, "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)["estimate"]["candidates"]
    assert (one["candidate"], one["calls"], one["settled"]) == ("shared", 380, 40)


@pytest.mark.parametrize("flag", [("--choose", "50"), ("--yes",), ("--tau", "0.3")])
def test_options_of_the_plan_stand_beside_it_alone(work, capsys, flag):
    assert main(["add-model", "--bundle", str(work / "root"), "--candidates", "x.json", *flag]) == 1
    assert f"{flag[0]}: stands beside --plan alone" in capsys.readouterr().err
