"""ipr train: outcomes of one's own become a bundle that routes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from training_data import seeded

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.cli import main
from ipr_engine.data import load_outcomes, overlap, read_prompt_hashes
from ipr_engine.errors import BundleError, InvalidInputError
from ipr_engine.training.heads import predict
from ipr_engine.training.train import read_candidates, train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

NAMES = ("house/big", "house/small", "other/mid")
WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")


@pytest.fixture
def source(tmp_path):
    """200 prompts; the small candidate fails on hard words, output tokens grow with the prompt."""
    rng = seeded("train")
    folder = tmp_path / "made"
    folder.mkdir()
    with (
        (folder / "prompts.csv").open("w", newline="") as prompts,
        (folder / "outcomes.csv").open("w", newline="") as rows,
    ):
        prompt_table, outcome_table = csv.writer(prompts), csv.writer(rows)
        prompt_table.writerow(("prompt_id", "prompt", "split"))
        outcome_table.writerow(("prompt_id", "model", "quality", "output_tokens"))
        for n in range(200):
            words = rng.choice(WORDS, 6)
            hard = np.isin(words, ("prove", "integral", "triangle")).mean()
            prompt_table.writerow((f"p{n:03d}", f"{' '.join(words)} number {n}", "train" if n < 160 else "test"))
            for m, _ in enumerate(NAMES):
                if m == 2 and n == 5:
                    continue  # sparse outcomes are normal
                right = rng.random() < (0.95, 0.9 - hard, 0.8)[m]
                outcome_table.writerow((f"p{n:03d}", f"m{m}", float(right), int(50 + 100 * hard + 10 * m)))
    return folder


@pytest.fixture
def candidates(tmp_path):
    path = tmp_path / "candidates.json"
    entries = [
        {"name": name, "source": f"m{m}", "family": name.split("/")[0], "provider": "test", "context_window": 4096}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m, "features": ["tools"]}
        for m, name in enumerate(NAMES)
    ]
    path.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    return path


def test_trained_heads_route(source, candidates, tmp_path, capsys):
    arguments = ["--outcomes", str(source), "--candidates", str(candidates), "--out", str(tmp_path / "root")]
    assert main(["train", *arguments, "--form", "plain", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["prompts"], facts["dropped"], facts["form"]) == (159, 1, "plain")
    engine = Engine.load(tmp_path / "root")
    assert engine.bundle.hash == facts["bundle"]
    easy, hard = engine.route(["river poem banana story", "prove integral triangle prove"], tau=0.2)
    small = engine.bundle.names.index("house/small")
    assert easy.qualities[small] > hard.qualities[small]


def test_the_engine_decides_as_the_fitted_heads_predict(source, candidates, tmp_path):
    trained = train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", form="advantage_each")
    engine = Engine.load(trained.folder)
    prompts = ["river poem banana", "prove the integral", "python loop sum"]
    quality, tokens = predict(dict(engine.bundle.quality_heads.tensors), engine.encode(prompts).x.astype(np.float64))
    decisions = engine.route(prompts, tau=0.1)
    np.testing.assert_allclose(decisions.qualities, quality, atol=1e-6)
    np.testing.assert_allclose(decisions.tokens_out, tokens, rtol=1e-5)


def test_the_bundle_keeps_hashes_of_its_fitting_prompts(source, candidates, tmp_path):
    trained = train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", form="plain")
    fitted = Bundle.load(trained.folder).quality_heads.fitted_on
    hashes = read_prompt_hashes(fitted.prompt_hashes)
    assert overlap(load_outcomes(source, split="train"), hashes).sum() == fitted.prompts == 159
    assert not overlap(load_outcomes(source, split="test"), hashes).any()


def test_training_twice_gives_the_same_bundle(source, candidates, tmp_path):
    hashes = {
        train(source, candidates, tmp_path / root, name="t", created="2026-11-24", form="plain").folder.name
        for root in ("one", "two")
    }
    assert len(hashes) == 1


def test_auto_chooses_one_of_the_forms(source, candidates, tmp_path, monkeypatch):
    monkeypatch.setattr("ipr_engine.training.forms.FORMS", ("plain", "advantage_each"))
    trained = train(source, candidates, tmp_path / "root", name="t", created="2026-11-24")
    assert trained.form.startswith(("plain", "advantage"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("date"), 'expected {"date"'),
        (lambda d: d.update(candidates=[]), "at least one candidate"),
        (lambda d: d["candidates"][1].pop("family"), r"candidates\[1\]: lacks family"),
        (lambda d: d["candidates"][1].update(prize=1), r"candidates\[1\]: has unknown prize"),
    ],
)
def test_a_bad_candidates_file_is_named(candidates, change, message):
    document = json.loads(candidates.read_text())
    change(document)
    candidates.write_text(json.dumps(document))
    with pytest.raises(InvalidInputError, match=message):
        read_candidates(candidates)


def test_a_price_that_is_none_is_refused_and_nothing_is_written(source, candidates, tmp_path):
    document = json.loads(candidates.read_text())
    document["candidates"][0]["input_usd_per_1m"] = -1
    candidates.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="input_usd_per_1m"):
        train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", form="plain")
    assert not (tmp_path / "root" / "CURRENT").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--form", "deep"], "form: expected 'auto' or one of plain"),
        (["--outcomes", "/nowhere"], "expected a folder"),
        (["--candidates", "/nowhere.json"], "candidates: expected a JSON file"),
        (["--split", "validation"], "validation"),
    ],
)
def test_bad_arguments_are_named(source, candidates, tmp_path, capsys, more, message):
    base = ["--outcomes", str(source), "--candidates", str(candidates), "--out", str(tmp_path / "root")]
    assert main(["train", *base, *more]) == 1
    assert message in capsys.readouterr().err
