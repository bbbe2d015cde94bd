"""Heads that tell prompts apart no better than a mean are refused, or delivered with their mark."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.bundle.origin import constant_of
from ipr_engine.bundle.two_tiers import two_tiers
from ipr_engine.cli import main
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.prediction import constancy, constant_heads
from ipr_engine.training.fitted_heads import HeadRows, fit_heads
from ipr_engine.training.platt import calibration_rows
from ipr_engine.training.selection import refuse_constant
from tests.support.seeds import seeded
from tests.support.training_data import add_model, make_world, train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

NAMES = ("reader", "blind", "dear")
WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")


def keys(rows: int) -> list[str]:
    return [f"question {i}" for i in range(rows)]


def test_a_head_that_knows_the_chances_passes(request):
    rng = seeded(request.node.name)
    chance = rng.random(300)
    assert constancy(chance, (rng.random(300) < chance).astype(float), keys(300)).reason is None


def test_a_prediction_that_hardly_moves_is_constant_however_many_rows_tell_it_apart(request):
    rng = seeded(request.node.name)
    side = rng.random(200_000) < 0.5
    quality = (rng.random(200_000) < np.where(side, 0.504, 0.496)).astype(float)
    found = constancy(np.where(side, 0.504, 0.496), quality, keys(200_000))
    assert found.spread < 0.01
    assert "standard deviation of 0.0040, below 0.01" in found.reason


@pytest.mark.parametrize("quality", [np.zeros(50), np.ones(50), np.full(50, 0.25)])
def test_outcomes_that_never_differ_leave_a_constant_head(request, quality):
    predicted = seeded(request.node.name).random(50)
    assert "not told apart" in constancy(predicted, quality, keys(50)).reason


def test_one_question_asked_many_times_is_one_observation(request):
    rng = seeded(request.node.name)
    chance = rng.random(6)
    quality = (rng.random(6) < chance).astype(float)
    chance = np.abs(quality - 0.3)  # right on all six questions
    many = np.repeat(np.arange(6), 50)
    apart = constancy(chance[many], quality[many], keys(300))
    together = constancy(chance[many], quality[many], [f"question {i}" for i in many])
    assert together.brier == apart.brier
    assert together.upper > apart.upper
    assert constancy(chance[many], quality[many], ["one"] * 300).reason is not None


def test_heads_fitted_on_noise_seldom_pass(request):
    rng = seeded(request.node.name)
    passed = 0
    for _ in range(10):
        x, quality = rng.standard_normal((150, 8)), (rng.random((150, 6)) < 0.6).astype(float)
        heads = fit_heads(HeadRows(x, quality, np.ones_like(quality), keys(150)), estimator="plain")
        rows = calibration_rows(quality, np.ones(150, np.bool_))
        found = constant_heads([f"m{m}" for m in range(6)], heads.out_of_fold_quality, quality, keys(150), rows)
        passed += 6 - len(found)
    assert passed <= 3  # 60 heads, 5 % of them


def test_heads_that_learn_pass(request):
    world = make_world(request.node.name, rows=400)
    heads = fit_heads(HeadRows(world.x, world.quality, world.tokens, world.keys), estimator="advantage_shared")
    rows = calibration_rows(world.quality, np.ones(400, np.bool_))
    names = [f"m{m}" for m in range(world.quality.shape[1])]
    assert not constant_heads(names, heads.out_of_fold_quality, world.quality, world.keys, rows)


def test_telling_sources_apart_is_no_merit_of_a_head(request):
    """The second candidate is judged away from home alone, at random, at a level that differs between the sources."""
    rng = seeded(request.node.name)
    x, source = rng.standard_normal((402, 8)), np.arange(402) % 3
    reader = (rng.random(402) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(float)
    blind = np.where(source == 0, np.nan, rng.random(402) < np.where(source == 1, 0.95, 0.2))
    quality = np.stack([reader, blind], axis=1)
    heads = fit_heads(HeadRows(x, quality, np.ones_like(quality), keys(402), source=source), estimator="plain")
    rows = calibration_rows(quality, source == 0)
    found = constant_heads(["reader", "blind"], heads.out_of_fold_quality, quality, keys(402), rows, source)
    assert list(found) == ["blind"]


def test_refusing_names_the_candidates_and_the_fix():
    with pytest.raises(
        InvalidInputError, match=r"1 of 3 heads .*'blind'.*: why.*--allow-constant \(allow_constant=True\)"
    ):
        refuse_constant({"blind": "why"}, 3)
    refuse_constant({}, 3)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """240 prompts: "reader" and "dear" fail on hard words, "blind" at random."""
    rng = seeded("constant heads")
    folder = tmp_path_factory.mktemp("constant") / "made"
    folder.mkdir()
    with (
        (folder / "prompts.csv").open("w", newline="") as prompts,
        (folder / "outcomes.csv").open("w", newline="") as rows,
    ):
        prompt_table, outcome_table = csv.writer(prompts), csv.writer(rows)
        prompt_table.writerow(("prompt_id", "prompt", "split"))
        outcome_table.writerow(("prompt_id", "model", "quality", "input_tokens", "output_tokens", "cost_usd"))
        for n in range(400):
            words = rng.choice(WORDS, 6)
            hard = np.isin(words, ("prove", "integral", "triangle")).mean()
            split = ("train", "train", "train", "test", "calibration")[n % 5]
            prompt_table.writerow((f"p{n:03d}", f"{' '.join(words)} number {n}", split))
            for m, name in enumerate(NAMES):
                right = rng.random() < (0.95 - 1.3 * hard, 0.5, 1.0 - 0.7 * hard)[m]
                outcome_table.writerow((f"p{n:03d}", name, float(right), 12, 50, (0.001, 0.0005, 0.01)[m]))
    entries = [
        {"name": name, "family": name, "provider": "test"}
        | {"input_usd_per_1m": price, "output_usd_per_1m": price, "context_window": 4096}
        for name, price in zip(NAMES, (1.0, 0.5, 10.0), strict=True)
    ]
    (folder.parent / "candidates.json").write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    return folder


@pytest.fixture(scope="module")
def marked(source):
    """A bundle with one constant head."""
    root = source.parent / "bundles"
    file = source.parent / "candidates.json"
    return train(source, file, root, name="t", created="2026-11-24", estimator="plain", allow_constant=True)


def test_training_refuses_a_constant_head_and_writes_nothing(source, tmp_path, capsys):
    base = ["train", "--outcomes", str(source), "--candidates", str(source.parent / "candidates.json")]
    assert main([*base, "--estimator", "plain", "--out", str(tmp_path / "root")]) == 1
    error = capsys.readouterr().err
    assert "1 of 3 heads are constant" in error
    assert "'blind'" in error
    assert "--allow-constant" in error
    assert not (tmp_path / "root").exists()


def test_training_tells_of_the_heads_it_was_asked_to_deliver(source, tmp_path, capsys):
    base = [
        "train",
        "--outcomes",
        str(source),
        "--candidates",
        str(source.parent / "candidates.json"),
        "--allow-constant",
    ]
    assert main([*base, "--estimator", "plain", "--out", str(tmp_path / "root")]) == 0
    out, error = capsys.readouterr()
    assert "constant head of blind" in error
    assert "constant heads (they tell prompts apart no better than a mean): blind" in out
    assert next(line for line in out.splitlines() if line.startswith("blind")).endswith("-  constant")
    assert main([*base, "--estimator", "plain", "--out", str(tmp_path / "root"), "--json"]) == 0
    rows = {row["candidate"]: row for row in json.loads(capsys.readouterr().out)["candidates"]}
    assert rows["blind"]["ece"] is None
    assert "Brier" in rows["blind"]["constant"]
    assert rows["reader"]["constant"] is None
    assert 0 <= rows["reader"]["ece"] < 1


def test_the_bundle_carries_the_mark_in_its_provenance(marked):
    bundle = Bundle.load(marked.folder)
    assert list(constant_of(bundle)) == ["blind"]
    assert bundle.provenance["constant"] == dict(marked.constant)
    assert np.isnan(marked.calibration_error).tolist() == [False, True, False]


def test_info_says_which_heads_are_constant(marked, capsys):
    assert main(["info", "--bundle", str(marked.folder)]) == 0
    out = capsys.readouterr().out
    assert "constant heads (they tell prompts apart no better than a mean): blind\n" in out
    assert "constant head: its" in next(line for line in out.splitlines() if line.startswith("blind "))
    assert main(["info", "--bundle", str(marked.folder), "--json"]) == 0
    told = {row["name"]: row["constant"] for row in json.loads(capsys.readouterr().out)["candidates"]}
    assert told["blind"]
    assert told["reader"] is None


def test_a_row_of_zeros_is_told_even_where_no_mark_is(marked, tmp_path):
    import dataclasses

    from ipr_engine.bundle import HeadsSource, write_bundle
    from ipr_engine.bundle.two_tiers import encoder_source

    bundle = Bundle.load(marked.folder)
    heads = bundle.quality_heads
    tensors = {name: tensor.copy() for name, tensor in heads.tensors.items()}
    tensors["skip"][2] = 0
    folder = write_bundle(
        tmp_path / "flat",
        BundleParts(
            name="flat",
            created="2026-11-24",
            candidates=bundle.candidates,
            encoders=[encoder_source(bundle.encoders[0], bundle.encoders[0].id, ())],
            heads=[
                HeadsSource(
                    id=heads.id,
                    encoder=heads.encoder,
                    outputs=heads.outputs,
                    candidates=heads.candidates,
                    fitted_on=dataclasses.replace(heads.fitted_on, prompt_hashes=None, hash_key=None),
                    tensors=tensors,
                )
            ],
            prices=bundle.prices,
            provenance={},
        ),
    )
    assert constant_of(Bundle.load(folder)) == {"dear": "its row is zero: one quality for every prompt"}


def test_the_mark_follows_a_candidate_through_edits(marked, tmp_path):
    bundle = Bundle.load(marked.folder)
    joined = two_tiers(bundle, bundle, gap=0.1, root=tmp_path / "two", provenance={})
    assert list(constant_of(Bundle.load(joined))) == ["blind"]
    left = without_candidate(bundle, "reader", root=tmp_path / "left")
    assert list(constant_of(Bundle.load(left))) == ["blind"]
    gone = without_candidate(bundle, "blind", root=tmp_path / "gone")
    assert not constant_of(Bundle.load(gone))


def test_a_mark_does_not_change_what_is_decided(marked):
    engine = Engine.load(marked.folder)
    assert engine.route("river poem banana story", tau=0.1).model in NAMES


def test_calibration_says_which_heads_are_constant(source, marked, tmp_path, capsys):
    base = ["calibrate", "--bundle", str(marked.folder), "--outcomes", str(source), "--split", "calibration"]
    assert main([*base, "--json"]) == 0
    out, error = capsys.readouterr()
    assert list(json.loads(out)["constant"]) == ["blind"]
    assert "constant heads" in error
    assert "rests on constant heads alone" not in error


def test_constant_heads_alone_are_not_certified(source, tmp_path, capsys):
    """Every candidate of the set at random: what would be certified is a choice by price."""
    rng = seeded("blind alone")
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "prompts.csv").write_text((source / "prompts.csv").read_text())
    with (folder / "outcomes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("prompt_id", "model", "quality", "output_tokens"))
        for n in range(400):
            for name, chance in zip(NAMES, (0.6, 0.4, 0.9), strict=True):
                table.writerow((f"p{n:03d}", name, float(rng.random() < chance), 50))
    base = ["--outcomes", str(folder)]
    file = [
        "--candidates",
        str(source.parent / "candidates.json"),
        "--out",
        str(tmp_path / "b"),
        "--estimator",
        "plain",
    ]
    assert main(["train", *base, *file, "--allow-constant"]) == 0
    assert "no head is shown to read the prompt: beyond prices and lengths" in capsys.readouterr().out
    asked = ["--bundle", str(tmp_path / "b"), *base, "--split", "calibration", "--out", str(tmp_path / "b")]
    assert main(["calibrate", *asked]) == 1
    assert "every operating point rests on constant heads alone" in capsys.readouterr().err
    assert not Bundle.load(tmp_path / "b").calibrations


def test_a_prior_made_of_a_constant_row_is_marked_as_constant_too(marked, tmp_path):
    entry = {"name": "new", "family": "new", "provider": "test", "context_window": 4096}
    entry |= {"input_usd_per_1m": 1.0, "output_usd_per_1m": 1.0}
    file = tmp_path / "new.json"
    file.write_text(json.dumps({"date": "2026-11-24", "candidates": [entry]}))
    for like, constant in (("blind", True), ("reader", False)):
        added = add_model(marked.folder, file, like=like, out=tmp_path / like, created="2026-11-24")
        assert ("new" in constant_of(Bundle.load(added.folder))) == constant
        assert (added.constant is not None) == constant
        assert not constant or "blind" in added.constant
