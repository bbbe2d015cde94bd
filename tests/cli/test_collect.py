"""`ipr collect` on the command line: what it says before it sends anything, what it tells after, and how it ends."""

from __future__ import annotations

import json

import pytest

from tests.support.paid_server import PaidServer
from tests.support.skips import COLLECT, GRADE

pytest.importorskip("openai", reason=COLLECT)
pytest.importorskip("aiolimiter", reason=COLLECT)
pytest.importorskip("regex", reason=GRADE)

from ipr_engine.cli import collecting
from ipr_engine.cli.main import main

PLAN = """\
prompts: prompts.jsonl
prices_date: '2026-11-29'
budget_usd: {budget}
format: jsonl
providers:
  paid: {{base_url: "{base_url}", limits: {{concurrency: 4, retries: 1, timeout_s: 5}}}}
candidates:
  - {{name: big, family: f, provider: paid, model: {model}, input_usd_per_1m: 3, output_usd_per_1m: 15, max_tokens: 32}}
{more}
"""
RIGHT = "graders:\n  right: {kind: numeric}"
JUDGED = """graders:
  judged: {kind: judge, rubric: correctness, judge: {name: judge, model: judging, provider: paid, input_usd_per_1m: 1,
           output_usd_per_1m: 2, max_tokens: 64}}"""


@pytest.fixture(scope="module")
def paid(tmp_path_factory):
    with PaidServer(tmp_path_factory.mktemp("paid") / "taken") as running:
        yield running


@pytest.fixture
def collect(tmp_path, paid, capsys):
    def run(*flags, more=RIGHT, model="adding-9", budget=1, prompts=None, base_url=None, count=12):
        lines = prompts or [{"prompt": f"Add {n} and {n}.", "reference": str(2 * n)} for n in range(count)]
        (tmp_path / "prompts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        plan = PLAN.format(base_url=base_url or paid.base_url, model=model, budget=budget, more=more)
        (tmp_path / "plan.yaml").write_text(plan)
        code = main(["collect", str(tmp_path / "plan.yaml"), *flags])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_what_is_sent_and_what_came_of_it_is_told(collect):
    code, out, err = collect()
    assert code == 0
    assert "12 prompts, USD 0.0" in out
    assert "big" in out
    assert "Add" not in out + err


def test_json_is_one_object(collect):
    code, out, _ = collect("--json")
    facts = json.loads(out)
    assert (code, facts["calls"]["answered"], facts["candidates"][0]["mean_quality"]) == (0, 12, 1.0)


def test_a_judge_stands_in_the_estimate_and_in_what_was_spent(collect):
    dry = json.loads(collect("--dry-run", "--json", more=JUDGED)[1])
    assert [(one["candidate"], one["calls"]) for one in dry["candidates"]] == [("big", 12), ("judge", 12)]
    made = json.loads(collect("--json", more=JUDGED)[1])
    (judge,) = made["judges"]
    assert 0 < judge["spent_usd"] < dry["candidates"][1]["most_usd"]
    again = json.loads(collect("--dry-run", "--json", more=JUDGED)[1])
    assert again["candidates"][1]["calls"] == 0


def test_a_spent_budget_ends_with_3(collect):
    code, _, err = collect(budget=0.005, count=60)
    assert code == 3
    assert "the budget of USD 0.005 is spent" in err


def test_answers_of_another_collection_are_told(collect, tmp_path):
    collect()
    (tmp_path / "collected").rename(tmp_path / "before")
    code, _, err = collect(more=f"{RIGHT}\nledgers: [before]", count=13)
    assert code == 0
    assert f"12 answers are taken from {tmp_path / 'before'}" in err
    assert "12 answers are taken" not in collect(more=f"{RIGHT}\nledgers: [before]", count=13)[2]


def test_how_far_grading_is_is_told(collect, monkeypatch):
    monkeypatch.setattr(collecting, "EVERY_S_ELSEWHERE", 0.0)
    code, out, err = collect("--json")
    assert code == 0
    assert "ipr collect: grader right: 12 answers graded\n" in err
    json.loads(out)


def test_prompts_without_references_are_told_before_anything_is_sent(collect):
    prompts = [{"prompt": f"Add {n} and 1."} for n in range(4)]
    _, _, err = collect("--dry-run", prompts=prompts)
    assert "grader right: 4 of 4 prompts have no reference" in err


def test_a_plan_without_graders_says_what_will_be_an_outcome(collect):
    prompts = [{"prompt": "Add 1 and 1.", "big|label": 1}, {"prompt": "Add 2 and 1."}]
    _, _, err = collect("--dry-run", more="", prompts=prompts)
    assert "the plan has no graders: only its 1 labels are outcomes" in err


def test_labels_of_nobody_are_told(collect):
    prompts = [{"prompt": "Add 1 and 1.", "reference": "2", "Big|label": 1}]
    _, _, err = collect("--dry-run", prompts=prompts)
    assert "1 labels are of 'Big', which is no candidate of the plan" in err


def test_a_grader_that_the_plan_lacks_is_an_error(collect):
    code, _, err = collect(prompts=[{"prompt": "Add 1 and 1.", "reference": "2", "grader": "other"}])
    assert code == 1
    assert "names the grader 'other', which is none of the plan's: right" in err


def test_a_provider_that_nothing_answers_at_is_asked_no_more(collect):
    code, _, err = collect("--json", base_url="http://127.0.0.1:9/v1", count=60)
    assert code == 3
    assert "big was asked no more: no_connection: nothing answers at its provider's base_url" in err


def test_a_misspelt_key_of_a_candidate_is_told_with_what_is_close(collect, tmp_path, capsys):
    collect("--dry-run")
    plan = tmp_path / "plan.yaml"
    plan.write_text(plan.read_text().replace("max_tokens", "max_token"))
    assert main(["collect", str(plan)]) == 1
    assert "plan.yaml, line 8: candidates[0].max_token: is no key here; close: max_tokens" in capsys.readouterr().err


def test_answers_are_written_to_be_read_and_labelled(collect, tmp_path):
    assert collect("--answers", str(tmp_path / "answers.jsonl"), count=3)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(row["candidate"], row["answer"], row["quality"]) for row in rows] == [
        ("big", f"The answer is {2 * n}.", 1.0) for n in range(3)
    ]
    assert (tmp_path / "answers.jsonl").stat().st_mode & 0o777 == 0o600
    for own in ("prompts.jsonl", "plan.yaml", "collected/outcomes.jsonl"):
        before = (tmp_path / own).read_bytes()
        code, _, err = collect("--answers", str(tmp_path / own), count=3)
        assert code == 1
        assert "--answers:" in err
        assert (tmp_path / own).read_bytes() == before
    code, _, err = collect("--answers", str(tmp_path / "answers.txt"))
    assert code == 1
    assert "--answers: expected a name that ends in" in err


def test_of_several_samples_the_luck_is_told(collect, tmp_path, capsys):
    more = """samples: 2
graders:
  right: {kind: numeric}"""
    second = "  - {name: small, family: f, provider: paid, model: lucky-30, input_usd_per_1m: 1, output_usd_per_1m: 2, max_tokens: 32}\n"
    code, out, err = collect("--json", more=second + more, model="lucky-70", count=30)
    assert code == 0
    noise = json.loads(out)["label_noise"]
    assert (noise["prompts"], noise["models"], noise["samples"]) == (30, 2, 2)
    assert "ipr collect: label noise: " in err
    folder = json.loads(out)["folder"]
    assert main(["data", "noise", folder, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {name: told[name] for name in noise} == pytest.approx(noise)
    assert set(told["means"]) == {"big", "small"}
    assert main(["data", "noise", folder]) == 0
    assert "is the luck of the sample" in capsys.readouterr().out
