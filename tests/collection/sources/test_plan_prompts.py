"""A plan's `prompts:` reach the collection, and what of them was left out reaches the terminal."""

from __future__ import annotations

import json
import shutil

import pytest

from ipr_engine.cli import main
from ipr_engine.collection.collection_plan import read_plan
from ipr_engine.collection.sources import read_prompts
from ipr_engine.errors import InvalidInputError
from tests.support.prompt_files import LOGS, write_lines
from tests.support.skips import COLLECT

PLAN = """
prompts:
  - {path: prompts.jsonl, columns: {prompt: question}}
  - {path: log.jsonl, layout: auto, skip_bad_rows: true, models: {gpt-4o-mini: small}}
prices_date: '2026-11-24'
budget_usd: 5
providers: {local: {base_url: 'http://127.0.0.1:9/v1'}}
candidates:
  - {name: small, family: A, provider: local, input_usd_per_1m: 0.15, output_usd_per_1m: 0.6, max_tokens: 64}
  - {name: big, family: A, provider: local, input_usd_per_1m: 2.5, output_usd_per_1m: 10, max_tokens: 64}
"""


@pytest.fixture
def plan(tmp_path):
    for module in ("yaml", "openai", "aiohttp", "aiolimiter"):
        pytest.importorskip(module, reason=COLLECT)
    write_lines(tmp_path / "prompts.jsonl", [{"question": "What is 17 * 23?", "reference": "391"}])
    shutil.copy(LOGS / "litellm_payloads.jsonl", tmp_path / "log.jsonl")
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path / "plan.yaml"


def test_paths_of_prompts_are_taken_from_the_plans_folder(plan):
    first = next(read_prompts(read_plan(plan)))
    assert (first.prompt, first.reference, list(first.answers)) == ("What is 17 * 23?", "391", ["small"])


def test_what_was_left_out_is_told_and_logged_answers_are_not_asked_again(plan, capsys):
    assert main(["collect", str(plan), "--dry-run", "--json"]) == 0
    told = capsys.readouterr()
    facts = json.loads(told.out)
    assert (facts["prompts"], facts["answers_of_logs"]) == (6, 1)
    calls = {one["candidate"]: one["calls"] for one in facts["candidates"]}
    assert calls["big"] - calls["small"] == 1  # the one that the log answers
    assert "log.jsonl, row 7: the request is not whole: LiteLLM masked it" in told.err


def test_a_source_that_is_stated_wrongly_is_told_by_file_line_and_key(plan):
    plan.write_text(PLAN.replace("layout: auto", "layout: litelm"))
    with pytest.raises(
        InvalidInputError, match=r"plan\.yaml, line 4: prompts\[1\]\.layout: expected one of auto, table"
    ):
        read_plan(plan)
