"""`ipr init` goes from models and prompts to a bundle that can be served, and spends nothing before it is told to."""

from __future__ import annotations

import json

import pytest

from tests.support.adding_numbers import MODELS, run_init, write_prompts
from tests.support.paid_server import PaidServer
from tests.support.skips import COLLECT, EVAL, GRADE, TRAIN

pytest.importorskip("openai", reason=COLLECT)
pytest.importorskip("aiolimiter", reason=COLLECT)
pytest.importorskip("regex", reason=GRADE)
pytest.importorskip("sklearn", reason=EVAL)
pytest.importorskip("threadpoolctl", reason=TRAIN)

import yaml

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.calibration.calibrate import calibrate
from ipr_engine.collection.ledger import LEDGER, Ledger
from ipr_engine.errors import InvalidInputError
from ipr_engine.onboarding import first_router
from ipr_engine.onboarding.first_plan import first_plan, write_upstreams
from ipr_engine.onboarding.needed_prompts import needed_prompts
from ipr_engine.server.server_config import read_config


@pytest.fixture(scope="module")
def paid(tmp_path_factory):
    with PaidServer(tmp_path_factory.mktemp("paid") / "taken") as running:
        yield running


@pytest.mark.slow
def test_models_and_prompts_become_a_bundle_a_report_and_what_serves_it(tmp_path, paid, capsys, monkeypatch):
    write_prompts(tmp_path, 300)
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url=paid.base_url))
    assert run_init(tmp_path, "--json") == 0
    dry = json.loads(capsys.readouterr().out)
    assert not dry["sent"]
    assert not paid.calls()
    current, moved = tmp_path / "router" / "bundles" / "CURRENT", []

    def calibrated(*given, **more):
        moved.append(current.exists())
        with pytest.raises(InvalidInputError, match="another process writes this ledger"):  # so a second init waits
            Ledger(next((tmp_path / "router").rglob(LEDGER)))
        return calibrate(*given, **more)

    monkeypatch.setattr(first_router, "calibrate", calibrated)
    assert run_init(tmp_path, "--yes", "--json") == 0
    assert moved == [False]  # a server that follows CURRENT sees the certified bundle alone
    made = json.loads(capsys.readouterr().out)
    assert made["report"].startswith("On ")
    assert made["collected"]["spent_usd"] <= sum(one["most_usd"] for one in dry["estimate"]["candidates"])
    assert made["router"]["figures"]["of_best_cost"]["value"] < 0.9
    assert f"- served: {made['report']}" in (tmp_path / "router" / "report" / "report.md").read_text()
    assert made["serve"].startswith("ipr serve --bundle ")
    engine = Engine.load(tmp_path / "router" / "bundles")
    assert engine.bundle.quality_heads.conversation == "recency"
    assert engine.route("Please add the numbers 7 and 12 and tell the sum.", tau=0.2).model == "small"
    assert engine.route("Please add the numbers 812345 and 12 and tell the sum.", tau=0.2).model == "big"
    config = read_config(str(tmp_path / "router" / "upstreams.yaml"))
    assert config.upstreams["small"].model == "adding-2"
    before = paid.calls()
    capsys.readouterr()
    assert run_init(tmp_path, "--yes", "--json") == 0  # again: nothing is paid twice, and nothing fitted anew
    assert paid.calls() == before
    told = capsys.readouterr()
    again = json.loads(told.out)
    assert (again["router"], again["report"], again["serve"]) == (made["router"], made["report"], made["serve"])
    assert "nothing changed since the bundle was made: it stands" in told.err
    assert (again["router"]["tasks"], "tasks" in again["report"]) == ({}, False)
    assert "evaluating" not in told.err
    assert run_init(tmp_path, "--yes", "--json", "--tau", "0.3") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["router"]["tau"] == 0.3
    assert "evaluating" in told.err
    root = tmp_path / "router" / "bundles"
    assert [one.name for one in root.iterdir() if one.is_dir()] == [Bundle.load(root).hash]  # none is left on the way
    without_candidate(Bundle.load(root), "small")  # by another command
    assert run_init(tmp_path, "--yes", "--json") == 1
    assert (
        "another command changed it, and it would be replaced; name another folder with --out"
        in capsys.readouterr().err
    )
    assert paid.calls() == before


@pytest.mark.slow
def test_prompts_that_say_what_they_are_for_become_heads_that_tell_tasks_apart(tmp_path, paid, capsys):
    write_prompts(tmp_path, 240, tasks=True)
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url=paid.base_url))
    assert run_init(tmp_path) == 0
    assert "240 of 240 prompts say what they are for: 'short sums' 1" in capsys.readouterr().err
    assert run_init(tmp_path, "--yes", "--json") == 0
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert "heads are fitted with their tasks (--task-column task)" in err
    assert list(made["router"]["tasks"]) == ["long sums", "short sums"]
    told = "Heads tell 2 tasks apart ('long sums', 'short sums'): name a request's own with it, as header x-ipr-task or as task=."
    assert made["report"].endswith(told)
    assert told in (tmp_path / "router" / "report" / "report.md").read_text()
    engine = Engine.load(tmp_path / "router" / "bundles")
    assert engine.bundle.tasks == {"long sums", "short sums"}
    assert engine.bundle.provenance["task_column"] == "task"
    assert engine.bundle.calibrations  # of a sample whose prompts name their tasks too
    assert made["router"]["standing"]
    for line in made["router"]["standing"]:
        assert f"ipr init: {line}" in err
    assert run_init(tmp_path, "--yes", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["router"] == made["router"]
    assert f"ipr init: {made['router']['standing'][-1]}" in err  # told again with the figures


@pytest.mark.slow
def test_a_router_is_given_all_turns_as_one_text_where_prompts_hold_several(tmp_path, paid, capsys):
    """Tables hold them as one text, and so does what is certified: another encoding of such requests would be certified on none."""
    rows = [json.loads(line) for line in write_prompts(tmp_path, 240).read_text().splitlines()]
    for row in rows[::12]:
        turns = ("user", "I have some sums."), ("assistant", "Go on."), ("user", row.pop("prompt"))
        row["messages"] = [{"role": role, "content": content} for role, content in turns]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url=paid.base_url))
    assert run_init(tmp_path, "--yes") == 0
    told = "20 of 240 prompts hold several turns of a user, which the tables hold as one text"
    err = capsys.readouterr().err
    assert told in err
    assert "encodes all of them as one text (--conversation all)" in err
    engine = Engine.load(tmp_path / "router" / "bundles")
    assert engine.bundle.quality_heads.conversation == "all"
    row = rows[0]["messages"]
    joined = f"{row[0]['content']}\n\n{row[2]['content']}"
    assert engine.encode([{"messages": row}]).x.tobytes() == engine.encode([joined]).x.tobytes()


@pytest.mark.slow
def test_tasks_that_only_prompts_held_out_state_are_not_fitted_with(tmp_path, paid, capsys):
    lines = [json.loads(line) for line in write_prompts(tmp_path, 240).read_text().splitlines()]
    for n, line in enumerate(lines):
        line["split"] = ("train", "train", "test", "calibration")[n % 4]
        if n == 2:
            line["task"] = "sums"
    (tmp_path / "prompts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url=paid.base_url))
    assert run_init(tmp_path, "--yes", "--json") == 0
    out, err = capsys.readouterr()
    assert "splits are those that the prompts state" in err
    assert "heads are fitted with their tasks" not in err
    assert json.loads(out)["router"]["tasks"] == {}


def test_a_plan_that_somebody_edited_stays(tmp_path):
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url="http://127.0.0.1:9/v1"))
    prompts = write_prompts(tmp_path, 3)
    plan = first_plan(tmp_path / "models.yaml", prompts, 5.0, tmp_path)
    assert plan.budget_usd == 5.0
    assert first_plan(tmp_path / "models.yaml", prompts, 7.0, tmp_path).budget_usd == 7.0
    file = tmp_path / "plan.yaml"
    file.write_text(file.read_text().split("\n", 1)[1].replace("budget_usd: 7.0", "budget_usd: 3.0"))
    assert first_plan(tmp_path / "models.yaml", prompts, 3.0, tmp_path).budget_usd == 3.0
    with pytest.raises(InvalidInputError, match=r"--budget: expected USD 3, as .*plan.yaml says"):
        first_plan(tmp_path / "models.yaml", prompts, 9.0, tmp_path)


def test_what_is_wrong_with_the_models_is_told_of_their_file_and_leaves_no_plan(tmp_path):
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url="nowhere"))
    prompts = write_prompts(tmp_path, 3)
    with pytest.raises(InvalidInputError, match=r"models.yaml: providers.paid.base_url: expected http"):
        first_plan(tmp_path / "models.yaml", prompts, 5.0, tmp_path)
    assert not (tmp_path / "plan.yaml").exists()
    (tmp_path / "models.yaml").write_text("budget_usd: 3\n")
    with pytest.raises(InvalidInputError, match=r"budget_usd: is no key here; `ipr init` says it"):
        first_plan(tmp_path / "models.yaml", prompts, 5.0, tmp_path)
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(InvalidInputError, match=r"--prompts: .*: no such file"):
        first_plan(tmp_path / "models.yaml", tmp_path / "none.jsonl", 5.0, tmp_path)


def test_what_serves_is_told_what_is_left_to_do_by_hand(tmp_path):
    text = MODELS.format(base_url="http://127.0.0.1:9/v1").replace("limits:", "api_key_file: key, limits:")
    (tmp_path / "models.yaml").write_text(text)
    plan = first_plan(tmp_path / "models.yaml", write_prompts(tmp_path, 3), 5.0, tmp_path)
    assert plan.providers["paid"].api_key_file == str(tmp_path / "key")
    left = write_upstreams(plan, tmp_path)
    assert left == ["paid: name the variable that holds its key (api_key_env) in upstreams.yaml"]
    document = yaml.safe_load((tmp_path / "upstreams.yaml").read_text())
    assert document["upstreams"]["small"] == {
        "endpoint": "paid",
        "model": "adding-2",
        "body": {"openai-chat": {"temperature": 0}},
    }


def test_a_config_of_the_server_that_somebody_edited_stays(tmp_path):
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url="http://127.0.0.1:9/v1"))
    plan = first_plan(tmp_path / "models.yaml", write_prompts(tmp_path, 3), 5.0, tmp_path)
    assert write_upstreams(plan, tmp_path) == write_upstreams(plan, tmp_path) == []
    file = tmp_path / "upstreams.yaml"
    edited = file.read_text().replace("adding-2", "mine")
    file.write_text(edited)
    (told,) = write_upstreams(plan, tmp_path)
    assert told.endswith("upstreams.yaml was edited and stays as it is")
    assert file.read_text() == edited


def test_a_smaller_tau_needs_more_prompts_and_equal_candidates_no_number(rng):
    apart = (rng.random((500, 2)) < [0.9, 0.6]).astype(float)
    counts = [one.calibration for one in needed_prompts(apart, 0, 1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == pytest.approx(4 * counts[1], rel=0.05)
    assert needed_prompts(apart[:, [0, 0]], 0, 1) == []


def test_a_folder_that_is_somebody_s_own_is_no_split_to_replace(tmp_path, capsys):
    write_prompts(tmp_path, 5)
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url="http://127.0.0.1:9/v1"))
    own = tmp_path / "router" / "split" / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert run_init(tmp_path) == 1
    assert "notes.txt" in capsys.readouterr().err
    assert own.read_text() == "mine"
