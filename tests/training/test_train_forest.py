"""`ipr train --estimator forest`: from outcomes to decisions, records that replay to the bit, and candidates more and less."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.cli import main
from ipr_engine.decide.contract import available_isas
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.evaluation.cross_fit import Recipe
from ipr_engine.training.add import add_model as add_model_module
from tests.support import skips
from tests.support.decide_requests import bytes_of
from tests.support.replay_logs import WHOLE, summarise
from tests.support.seeds import seeded
from tests.support.training_data import add_model, train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")
pytest.importorskip("sklearn", reason=skips.TREES)

NAMES = ("house/big", "house/small", "other/mid")
WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")
PROMPTS = ["river poem banana", "prove integral triangle prove", "python loop", "a sum"]
OPTIONS = {"trees": 10, "depth": 4, "caps": 8}


GIVEN = {
    "name": "t",
    "created": "2026-11-24",
    "allow_constant": True,
    "estimator": "forest",
    "options": OPTIONS,
    "conversation": "all",  # bundles say neither this nor that width is not folded: theirs is the version of a forest
    "fold_width": False,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return outcomes of 200 prompts, in which the small candidate fails on hard words, and the candidates' file."""
    rng, folder = seeded("train forest"), tmp_path_factory.mktemp("data") / "made"
    folder.mkdir()
    prompts, outcomes = [("prompt_id", "prompt", "split")], [("prompt_id", "model", "quality", "output_tokens")]
    for n in range(200):
        words = rng.choice(WORDS, 6)
        hard = np.isin(words, ("prove", "integral", "triangle")).mean()
        prompts.append((f"p{n:03d}", f"{' '.join(words)} number {n}", "train"))
        for m in range(3):
            right = rng.random() < (0.95, 0.9 - hard, 0.8)[m]
            outcomes.append((f"p{n:03d}", f"m{m}", float(right), int(50 + 100 * hard + 10 * m)))
    for name, rows in (("prompts", prompts), ("outcomes", outcomes)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    entries = [
        {"name": name, "source": f"m{m}", "family": name.split("/")[0], "provider": "test"}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m, "context_window": 4096}
        for m, name in enumerate(NAMES)
    ]
    candidates = folder.parent / "candidates.json"
    candidates.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    return folder, candidates


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    source, candidates = files
    out = tmp_path_factory.mktemp("root")
    return train(source, candidates, out, **GIVEN).folder


@pytest.fixture(scope="module")
def engine(folder):
    return Engine.load(folder)


def test_the_bundle_holds_the_forest_and_says_how_it_was_fitted(folder, engine):
    tensors = engine.bundle.quality_heads.tensors
    assert tensors["tree_leaf"].shape[0] == OPTIONS["trees"]
    assert tensors["tree_leaf"].shape[2] == len(NAMES)
    settings = engine.bundle.provenance["settings"]
    assert {name: settings[name] for name in OPTIONS} == OPTIONS
    of_surface = SurfaceEncoder.load().dim  # the default encoder has it beside the table
    assert (settings["estimator"], settings["leaf"], settings["surface_dim"]) == ("forest", 8, of_surface)
    assert json.loads((folder / "bundle.json").read_text())["schema_version"] == 8
    assert engine.bundle.path_rows is not None
    recipe = Recipe.of(engine.bundle, "cross-fit")
    assert set(recipe.options) == {"trees", "depth", "leaf", "caps", "inside", "spread", "forms"}
    assert recipe.options["trees"] == OPTIONS["trees"]


def test_training_twice_gives_the_same_weights(files, folder, tmp_path):
    source, candidates = files
    again = train(source, candidates, tmp_path, key=folder.parent / "owner.key", **GIVEN).folder
    assert again.name == folder.name


@pytest.mark.parametrize("isa", available_isas())
def test_one_call_a_batch_and_a_kept_embedding_decide_alike(folder, engine, isa):
    other = Engine.load(folder, isa=isa)
    many = engine.route_many(PROMPTS, tau=0.3)
    kept = other.decide(other.encode(PROMPTS), tau=0.3)
    assert bytes_of(other.route_many(PROMPTS, tau=0.3).result) == bytes_of(many.result) == bytes_of(kept.result)
    for row, prompt in enumerate(PROMPTS):
        one = other.route(prompt, tau=0.3)
        assert one.qualities.tobytes() == many.qualities[row].tobytes()
        assert (one.model, one.cause, one.gap) == (many.models[row], many[row].cause, many.gap[row])


def test_records_replay_to_the_bit_and_a_decision_is_explained(engine, folder):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    lines: list[bytes] = []
    engine.recorder(lines.append, **WHOLE).route_many(PROMPTS, tau=0.3)
    for isa in available_isas():
        summary = summarise(b"".join(lines).splitlines(keepends=True), Engine.load(folder, isa=isa))
        assert (summary.records, summary.equal, summary.refused) == (len(PROMPTS), len(PROMPTS), 0)
    explained = engine.explain(PROMPTS[1], tau=0.3)
    assert set(explained.realised) == set(NAMES)
    assert engine.route(PROMPTS[1], tau=0.3).model in explained.summary


def test_a_candidate_less_leaves_the_others_as_they_were(engine, folder, tmp_path):
    fewer = Engine.load(without_candidate(Bundle.load(folder), "house/small", root=tmp_path))
    assert fewer.bundle.quality_heads.tensors["tree_leaf"].shape[2] == 2
    np.testing.assert_array_equal(
        fewer.route_many(PROMPTS, tau=0.3).qualities, engine.route_many(PROMPTS, tau=0.3).qualities[:, [0, 2]]
    )


def test_a_refresh_keeps_the_leaves_that_it_started_from(files, folder, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason=skips.TORCH)
    started, refresh = [], add_model_module.refresh

    def watched(tensors, *arguments, **options):
        started.append(tensors["tree_leaf"])
        return replace(refresh(tensors, *arguments, **options), epochs=1)

    monkeypatch.setattr(add_model_module, "refresh", watched)
    without_candidate(Bundle.load(folder), "house/small", root=tmp_path / "root")
    source, candidates = files
    added = add_model(
        tmp_path / "root", candidates, outcomes=source, name="house/small", consistency=1.0, created="2026-11-25",
        key=folder.parent / "owner.key",
    )  # fmt: skip
    made = Bundle.load(added.folder).quality_heads
    np.testing.assert_array_equal(made.tensors["tree_leaf"], started[0])


def test_info_and_explain_read_it_from_the_shell(folder, capsys):
    assert main(["info", "--bundle", str(folder)]) == 0
    assert "; estimator forest\n" in capsys.readouterr().out
    assert main(["explain", "prove the sum", "--bundle", str(folder), "--tau", "0.2"]) == 0
    assert "house/big" in capsys.readouterr().out
