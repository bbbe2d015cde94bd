"""A plan is read from YAML; what is wrong with it is told by file, line and key, and no value that may be a key is repeated."""

from __future__ import annotations

import pytest

from tests.support.skips import COLLECT

pytest.importorskip("yaml", reason=COLLECT)

from ipr_engine.collection.collection_plan import read_plan
from ipr_engine.collection.sources import PromptSource
from ipr_engine.errors import InvalidInputError
from tests.support.collections import candidate, plan_for

PLAN = """\
prompts: prompts.jsonl
prices_date: '2026-11-24'
budget_usd: 5
providers:
  openai:
    base_url: https://api.openai.com/v1
    api_key_env: OPENAI_API_KEY
    limits: {concurrency: 4}
candidates:
  - name: big
    family: Big
    provider: openai
    model: big-2026
    input_usd_per_1m: 2.5
    output_usd_per_1m: 10
    max_tokens: 1024
  - {name: small, family: Big, provider: openai, input_usd_per_1m: 0.1, output_usd_per_1m: 0.4, max_completion_tokens: 64,
     parameters: {temperature: 0}, budget_usd: 2}
"""


def wrong(tmp_path, old, new):
    file = tmp_path / "plan.yaml"
    assert old in PLAN
    file.write_text(PLAN.replace(old, new))
    with pytest.raises(InvalidInputError) as error:
        read_plan(file)
    return str(error.value).replace(str(file), "plan.yaml")


def test_a_plan_is_read(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    plan = read_plan(file)
    big, small = plan.asked
    assert (big.model, big.limit, big.most_tokens, big.budget_usd) == ("big-2026", "max_tokens", 1024, None)
    assert (small.model, small.limit, small.budget_usd) == ("small", "max_completion_tokens", 2)
    assert dict(small.parameters) == {"temperature": 0}
    assert plan.providers["openai"].limits.concurrency == 4
    assert plan.out_folder == tmp_path / "collected"
    assert set(big.entry) == {"name", "family", "provider", "input_usd_per_1m", "output_usd_per_1m"}


def test_a_plan_is_known_by_what_it_says_wherever_it_lies(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plan.yaml").write_text(PLAN)
    one, two = (read_plan(tmp_path / folder / "plan.yaml") for folder in ("a", "b"))
    assert one.sha256 == two.sha256


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("budget_usd: 5\n", "", "budget_usd: is missing"),
        ("budget_usd: 5\n", "budget_usd: -1\n", "plan.yaml, line 3: budget_usd: expected USD"),
        ("budget_usd: 5\n", "budget_usd: five\n", "plan.yaml, line 3: budget_usd: expected a number"),
        ("budget_usd: 5\n", "budget_usd: .inf\n", "plan.yaml, line 3: budget_usd: expected USD"),
        ("budget_usd: 5\n", "budget_usd: 5\nbuget: 2\n", "plan.yaml, line 4: buget: is no key here"),
        ("'2026-11-24'", "2026-11-24", "plan.yaml, line 2: prices_date: is a date to YAML; quote it"),
        ("concurrency: 4", "concurrency: 0", "plan.yaml, line 8: providers.openai.limits.concurrency: expected"),
        ("concurrency: 4", "rate: 4", "plan.yaml, line 8: providers.openai.limits.rate: is no key here"),
        ("https://api.openai.com/v1", "api.openai.com", "plan.yaml, line 6: providers.openai.base_url: expected http"),
        ("OPENAI_API_KEY", "sk-abcdefghijklmnop", "plan.yaml, line 7: providers.openai.api_key_env: expected the name"),
        ("    max_tokens: 1024\n", "", "plan.yaml, line 10: candidates[0].max_tokens: expected the most tokens"),
        ("max_tokens: 1024", "max_tokens: 0", "candidates[0].max_tokens: expected a whole number from 1"),
        ("provider: openai\n", "provider: other\n", "candidates[0].provider: expected the name of one of the plan's"),
        ("{temperature: 0}", "{model: x}", "plan.yaml, line 17: candidates[1].parameters.model: cannot stand here"),
        ("name: small", "name: big", "candidates: expected distinct names"),
        ("input_usd_per_1m: 2.5", "input_usd_per_1m: -2", "candidates[0].input_usd_per_1m"),
        ("budget_usd: 5\n", "budget_usd: 5\npath: x\n", "plan.yaml, line 4: path: is no key here"),
        ("budget_usd: 5\n", "budget_usd: 5\nsamples: 0\n", "plan.yaml, line 4: samples: expected 1 to 100"),
        ("budget_usd: 5\n", "budget_usd: 5\nbudget_usd: 6\n", "line 4"),
        ("providers:\n", "providers: &p\n", None),
    ],
)
def test_what_is_wrong_is_told_by_line_and_key(tmp_path, old, new, told):
    if told is None:
        (tmp_path / "plan.yaml").write_text(PLAN.replace(old, new))
        assert read_plan(tmp_path / "plan.yaml").asked
        return
    said = wrong(tmp_path, old, new)
    assert told in said
    assert "abcdefghijklmnop" not in said


@pytest.mark.parametrize("header", ["api-key: 0123456789", "x-team: Bearer abcdefghijklmnop"])
def test_a_key_in_a_header_is_told_where_a_plan_takes_keys_from(tmp_path, header):
    said = wrong(tmp_path, "api_key_env: OPENAI_API_KEY", f"api_key_env: OPENAI_API_KEY\n    headers: {{{header}}}")
    assert f"headers.{header.partition(':')[0]}: holds a key" in said
    assert "api_key_env, or a file that holds nothing else in api_key_file" in said
    assert "api_key_header" not in said
    assert header.rpartition(" ")[2] not in said


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"max_tokens": 64}, r"max_tokens: has no effect in a plan; give it in judge, whose reply it limits"),
        (
            {"mode": "pairwise", "baseline": "small", "points": 5},
            r"points: has no effect on a pairwise judge; leave it out",
        ),
    ],
)
def test_an_option_without_effect_on_a_judge_is_told(tmp_path, more, told):
    grader = {"kind": "judge", "judge": candidate("judge"), **more}
    with pytest.raises(InvalidInputError, match=rf"graders\.good\.{told}"):
        plan_for(tmp_path, "http://h/v1", candidate("small"), graders={"good": grader})


def test_a_key_file_is_read_when_it_is_needed(tmp_path):
    (tmp_path / "key").write_text("sk-secret-of-mine\n")
    (tmp_path / "plan.yaml").write_text(PLAN.replace("api_key_env: OPENAI_API_KEY", f"api_key_file: {tmp_path}/key"))
    provider = read_plan(tmp_path / "plan.yaml").providers["openai"]
    assert provider.key("providers.openai") == "sk-secret-of-mine"
    (tmp_path / "key").write_text("two words\nand lines")
    with pytest.raises(InvalidInputError, match=r"api_key_file: the file holds a key") as error:
        provider.key("providers.openai")
    assert "two words" not in str(error.value)
    (tmp_path / "key").unlink()
    with pytest.raises(InvalidInputError, match="api_key_file: key cannot be read: No such file"):
        provider.key("providers.openai")


@pytest.mark.parametrize(
    "changed",
    [
        {"out": "", "prompts": "prompts.jsonl"},
        {"out": ".", "prompts": (PromptSource(path="outcomes.jsonl"),)},
        {"prompts": "collected"},
        {"prompts": "x/../collected/prompts.jsonl"},
    ],
)
def test_tables_do_not_replace_the_prompts_they_are_made_of(tmp_path, changed):
    with pytest.raises(InvalidInputError, match="out: its tables would replace"):
        plan_for(tmp_path, "http://127.0.0.1:9/v1", **changed)


@pytest.mark.parametrize("name", ["a/b", "..", "", "a b", "x" * 65])
def test_a_grader_s_name_can_be_a_file_s(tmp_path, name):
    with pytest.raises(InvalidInputError, match="graders: expected names of letters"):
        plan_for(tmp_path, "http://127.0.0.1:9/v1", graders={name: {"kind": "exact"}})
