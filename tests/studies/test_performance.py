"""The study of performance: answers are read as recorded, USD alone is cheapest, heavy seconds are fastest, its page whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import InvalidInputError
from ipr_engine.cli import main
from studies import performance_trade
from studies.performance_answers import SOURCE, read_rated_answers
from tests.support import skips
from tests.support.seeds import seeded

pytest.importorskip("threadpoolctl", reason=skips.TRAIN)

# model -> USD per 1 M output tokens, ttft_s, tpot_s, chance of the best rating: cheap and slow, dear and fast, good and in between
MODELS = {
    "slow-cheap": (1.0, 3.0, 0.02, 0.3),
    "fast-dear": (9.0, 0.5, 0.004, 0.4),
    "good-mid": (5.0, 1.0, 0.01, 0.9),
}
WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 prompts, each answered by every model but the first prompt by two; the recorded cost is a price times tokens."""
    pyarrow = pytest.importorskip("pyarrow", reason=skips.PYARROW)
    from pyarrow import parquet

    made = tmp_path_factory.mktemp("responses") / SOURCE
    made.mkdir()
    rng = seeded("performance study")
    prompts = [
        {"prompt_id": f"p{i}", "prompt": f"{' '.join(rng.choice(WORDS, 6))} {i}", "question_key": f"q{i}"}
        for i in range(60)
    ]
    responses, ratings = [], []
    for i, row in enumerate(prompts):
        for name, (price, ttft, tpot, good) in MODELS.items():
            if i == 0 and name == "good-mid":
                continue
            tokens, read = int(rng.integers(50, 400)), int(rng.integers(10, 40))
            seconds = (ttft + tpot * tokens) * float(np.exp(rng.normal(0, 0.03)))
            both = {"prompt_id": row["prompt_id"], "model": name}
            usd = (0.5 * read + price * tokens) / 1e6
            responses.append(
                both
                | {"input_tokens": read, "output_tokens": tokens, "cost_usd": usd, "latency_ms": round(1000 * seconds)}
            )
            verdict = float(rng.random() < good)
            ratings += [both | {"rater": f"judge {j}", "rating": verdict if j else 0.5 * verdict} for j in range(2)]
    for name, rows in (("prompts", prompts), ("responses", responses), ("ratings", ratings)):
        parquet.write_table(pyarrow.Table.from_pylist(rows), made / f"{name}.parquet")
    return made


def test_answers_are_read_as_they_were_recorded(folder):
    answers = read_rated_answers(folder)
    assert answers.models == tuple(sorted(MODELS))
    assert len(answers.prompts) == 60
    assert list(answers.complete) == list(range(1, 60))
    assert np.isnan(answers.quality[0, answers.models.index("good-mid")])
    assert answers.raters_agree == pytest.approx(1.0)
    for name, price in zip(answers.models, answers.prices, strict=True):
        assert price == pytest.approx((0.5, MODELS[name][0]))
    assert set(np.unique(answers.quality[answers.complete])) == {0.0, 0.75}


def test_the_page_trades_usd_for_seconds(folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    monkeypatch.setattr(performance_trade, "ESTIMATOR", "plain")
    out = tmp_path / "out"
    assert main(["study", "performance", "--outcomes", str(folder.parent), "--out", str(out), "--draws", "20"]) == 0
    assert {p.name for p in out.iterdir()} == {
        "performance.md", "performance.json", "performance.png", "performance_answers.png"
    }  # fmt: skip
    figures = json.loads((out / "performance.json").read_text())
    for name, (_, ttft, tpot, _) in MODELS.items():
        fit = figures["explained"][name]
        assert fit["tpot_s"]["value"] == pytest.approx(tpot, rel=0.1)
        assert fit["ttft_s"]["value"] == pytest.approx(ttft, rel=0.3, abs=0.1)
        assert fit["out_of_fold"]["explained"] > 0.9
    lines = {line["asked"]: line["points"] for line in figures["trade"]}
    assert list(lines) == list(performance_trade.ASKED)
    cheapest, fastest = lines["tau 1"][0], lines["tau 1"][-1]
    assert cheapest["shares"] == {"slow-cheap": 1.0}
    assert fastest["shares"] == {"fast-dear": 1.0}
    for asked in ("tau 1", "worth 0.2 USD"):  # the weighted sum's minimiser: its seconds do not rise with their weight
        expected = [point["seconds_expected"] for point in lines[asked]]
        assert (np.diff(expected) <= 1e-6).all()
    page = (out / "performance.md").read_text()
    assert "ipr study performance --outcomes DIR" in page
    assert str(tmp_path) not in page
    assert not any(prompt in page + json.dumps(figures) for prompt in read_rated_answers(folder).prompts)


def test_another_source_is_refused(folder, tmp_path, capsys):
    arguments = [
        "study",
        "performance",
        "--outcomes",
        str(folder.parent),
        "--out",
        str(tmp_path),
        "--source",
        "zeroeval",
    ]
    assert main(arguments) == 1
    assert f"source: this study reads {SOURCE} alone, got zeroeval" in capsys.readouterr().err


def test_a_cost_that_is_no_price_times_tokens_is_refused(folder):
    answers = read_rated_answers(folder)
    answers.usd[3, 0] *= 1.5
    with pytest.raises(InvalidInputError, match="the recorded cost of fast-dear is not a price times its tokens"):
        _ = answers.prices
