"""`ipr train --encoder surface`: features beside an encoder, from outcomes to a decision."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.cli import main
from ipr_engine.data import embed_prompts, load_outcomes
from ipr_engine.decide.contract import available_isas
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.errors import BundleNotFoundError, InvalidInputError
from ipr_engine.evaluation import evaluate
from ipr_engine.evaluation.evaluation_inputs import Split
from ipr_engine.training import train as training
from ipr_engine.training.estimators import by_name
from ipr_engine.training.selection import EstimatorScore
from ipr_engine.training.train_options import EncoderChoice, FitOptions
from tests.support import skips
from tests.support.bundles import make_encoder
from tests.support.decide_requests import bytes_of
from tests.support.evaluation_data import evaluate_engine
from tests.support.training_data import add_model, train, write_candidates, write_source

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")
pytest.importorskip("sklearn", reason=skips.TREES)

NAMES = ("house/big", "house/small", "other/mid", "house/new")
PROMPTS = ["prove the sum", "write a story", "explain python code", "how many is the river?", "A) 1 B) 2"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("data") / "made", ["m0", "m1", "m2", "m3"], PROMPTS)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("table"))


def listed(path, count):
    return write_candidates(path, NAMES[:count])


def fit(source, root, encoder, **more):
    more = {"estimator": "forest", "allow_constant": True, **more}
    candidates = listed(root.parent / "candidates.json", 3)
    return train(source, candidates, root, name="t", created="2026-11-24", encoder=encoder, **more).folder


def test_a_router_with_features_is_evaluated(source, table, tmp_path, monkeypatch):
    engine = Engine.load(fit(source, tmp_path / "root", [table, "surface"]))
    seen = []
    summed = evaluate.summarise
    monkeypatch.setattr(evaluate, "summarise", lambda *a, **b: seen.append((a, b)) or summed(*a, **b))
    figures = evaluate_engine(engine, load_outcomes(source), draws=3).figures
    assert figures["prediction"][0]
    # Baselines measure distances in the embedding: features would drown it.
    splits = [part for a, b in seen for part in (*a, *b.values()) if isinstance(part, Split)]
    width = StaticEncoder.from_folder(table).dim
    assert {split.x.shape[1] for split in splits} == {width}
    assert len(splits) == 2
    assert engine.encode(["A) 1 B) 2"]).x.shape[1] > width


@pytest.mark.parametrize("encoder", ["first", "last"])
def test_features_come_last_wherever_the_word_stands(source, table, tmp_path, encoder):
    asked = ["surface", table] if encoder == "first" else [table, "surface"]
    bundle = Bundle.load(fit(source, tmp_path / "root", asked))
    assert [(spec.id, spec.kind) for spec in bundle.encoders] == [
        ("static", "static"),
        ("surface", "surface"),
        ("side_by_side", "concatenated"),
    ]
    assert bundle.quality_heads.tensors["skip"].shape == (3, 16)  # trees alone read features
    assert bundle.encoders[-1].dim == 16 + SurfaceEncoder.load().dim
    assert bundle.support.centroids.shape[1] == 16


def test_a_bundle_with_features_decides_and_takes_a_model_more(source, table, tmp_path):
    root = tmp_path / "root"
    engine = Engine.load(fit(source, root, [table, "surface"], cache=tmp_path / "cache"))
    assert engine.loaded.routes_text
    assert engine.route(PROMPTS[0], tau=0.2).model in NAMES
    assert not (tmp_path / "cache").exists()  # neither a table nor features are kept
    new = add_model(root, listed(tmp_path / "new.json", 4), outcomes=source, created="2026-11-25").folder
    added = Engine.load(new)
    assert added.bundle.names == NAMES
    assert added.route(PROMPTS[0], tau=1.0).model in NAMES


@pytest.mark.parametrize("parts", [1, 2])
def test_features_that_no_head_reads_are_left_out_and_that_is_told(source, table, tmp_path, parts):
    others = [make_encoder(tmp_path / "other", dim=8, seed=2)] if parts == 2 else []
    told = []
    asked = [table, *others, "surface"]
    made = Bundle.load(fit(source, tmp_path / "with", asked, estimator="caps", progress=told.append))
    assert "surface features are left out of the bundle: caps does not read them, forest does" in told
    without = Bundle.load(fit(source, tmp_path / "without", asked[:-1], estimator="caps"))
    assert [spec.id for spec in made.encoders] == [spec.id for spec in without.encoders]
    assert {spec.kind for spec in made.encoders} <= {"static", "concatenated"}
    for name, tensor in without.quality_heads.tensors.items():
        assert made.quality_heads.tensors[name].tobytes() == tensor.tobytes()
    assert made.support.centroids.tobytes() == without.support.centroids.tobytes()


def test_where_no_encoder_is_named_a_forest_reads_the_table_and_the_surface(source, tmp_path):
    options = {"trees": 4, "depth": 2, "leaf": 4, "caps": 4}
    bundle = Bundle.load(fit(source, tmp_path / "root", None, options=options, head_tokens=3))
    assert [spec.kind for spec in bundle.encoders] == ["static", "surface", "concatenated"]
    assert bundle.encoders[0].head_tokens == 3
    alone = Bundle.load(fit(source, tmp_path / "alone", "default", options=options))
    assert [spec.kind for spec in alone.encoders] == ["static"]


def test_auto_compares_a_forest_that_sees_the_surface_of_the_default_encoder(source, tmp_path, monkeypatch):
    seen = {}

    def compared(rows, costs, *, estimators, **_):
        seen["dims"] = (rows.embedding.shape[1], rows.surface_dim)
        return [
            EstimatorScore(name, (float(name == "caps"),) * 2, (0.0,) * 2, (0.0,) * 2, (0.1,) * 2)
            for name in estimators
        ]

    monkeypatch.setattr(training, "compare_estimators", compared)
    told = []
    made = fit(source, tmp_path / "root", None, estimator="auto", progress=told.append)
    assert seen["dims"] == (256, SurfaceEncoder.load().dim)
    assert "surface features are left out of the bundle: caps does not read them, forest does" in told
    assert [spec.kind for spec in Bundle.load(made).encoders] == ["static"]


def test_an_estimator_that_reads_no_surface_gives_the_bytes_of_the_table_alone(source, tmp_path):
    told = []
    by_none = fit(source, tmp_path / "root", None, estimator="caps", progress=told.append)
    assert not [line for line in told if "surface" in line]
    assert fit(source, tmp_path / "root", "default", estimator="caps").name == by_none.name


def test_without_scikit_learn_the_default_is_the_table_and_one_line_says_so(source, tmp_path, monkeypatch):
    for module in (training, by_name):
        monkeypatch.setattr(module, "trees_missing", lambda: "it needs scikit-learn: install it")
    monkeypatch.setattr(by_name, "CLOSED_FORM", ("plain", "forest"))
    told = []
    made = fit(source, tmp_path / "root", None, estimator="auto", progress=told.append)
    assert [spec.kind for spec in Bundle.load(made).encoders] == ["static"]
    assert [line for line in told if "scikit" in line] == ["forest is not compared: it needs scikit-learn: install it"]
    assert not [line for line in told if "surface" in line]


def test_options_of_an_estimator_are_checked_before_anything_is_read():
    for estimator, options in (
        ("forest", {"tree": 60}),
        ("forest", {"depth": 40}),
        ("plain", {"trees": 3}),
        ("caps", {"inside": 2.0}),
    ):
        with pytest.raises(InvalidInputError, match=next(iter(options))):
            FitOptions(estimator=estimator, options=options)


def test_a_misspelt_word_is_told_with_the_words_there_are():
    with pytest.raises(
        BundleNotFoundError, match="surfaces: no such folder; expected one, or the word 'default' or 'surface'"
    ):
        EncoderChoice(folders=["default", "surfaces"]).open()


def test_features_are_embedded_through_a_cache_of_other_parts(table, tmp_path):
    other = make_encoder(tmp_path / "other", dim=8, seed=2)
    encoder = EncoderChoice(folders=[table, other, "surface"]).open().encoder
    assert encoder.native is None
    plain = encoder.encode(PROMPTS)
    assert embed_prompts(encoder, PROMPTS, cache=tmp_path / "cache").x.tobytes() == plain.x.tobytes()


def test_features_alone_are_refused():
    for asked in ("surface", ["surface"], ["surface", "surface"]):
        with pytest.raises(InvalidInputError, match="surface features stand beside an encoder"):
            EncoderChoice(folders=asked).open()
    with pytest.raises(InvalidInputError, match="one twice among default, surface, surface"):
        EncoderChoice(folders=["surface", "default", "surface"]).open()
    with pytest.raises(InvalidInputError, match="max_tokens: of a transformer"):
        EncoderChoice(folders=["surface", "default"], max_tokens=5).open()


def test_the_command_line_takes_the_word(source, table, tmp_path, capsys):
    common = [
        "--outcomes",
        str(source),
        "--candidates",
        str(listed(tmp_path / "c.json", 3)),
        "--out",
        str(tmp_path / "r"),
    ]
    asked = [
        "--encoder",
        "surface",
        "--encoder",
        str(table),
        "--estimator",
        "forest",
        "--allow-constant",
        "--no-standing",
    ]
    assert main(["train", *common, *asked]) == 0
    capsys.readouterr()
    assert main(["route", *PROMPTS, "--json", "--tau", "0.1", "--bundle", str(tmp_path / "r")]) == 0
    models = [json.loads(line)["decision"]["model"] for line in capsys.readouterr().out.splitlines()]
    assert len(models) == len(PROMPTS)
    assert main(["info", "--bundle", str(tmp_path / "r")]) == 0
    assert "surface" in capsys.readouterr().out
    x = Engine.load(tmp_path / "r").encode(PROMPTS).x
    assert np.isfinite(x).all()


def test_a_forest_reads_the_features_that_products_do_not(source, table, tmp_path):
    pytest.importorskip("sklearn", reason=skips.TREES)
    root, options = tmp_path / "root", {"trees": 8, "depth": 3, "leaf": 4, "caps": 4}
    folder = fit(source, root, [table, "surface"], estimator="forest", options=options)
    engine, dim = Engine.load(folder), 16 + SurfaceEncoder.load().dim
    tensors = engine.bundle.quality_heads.tensors
    assert {tensors[name].shape[-1] for name in ("trunk", "len_skip")} == {16}
    assert (tensors["tree_column"] >= 16).any()
    assert (engine.plan.dim, engine.encoder.dim) == (dim, dim)
    many = engine.route_many(PROMPTS, tau=0.2)
    for isa in available_isas():
        other = Engine.load(folder, isa=isa)
        assert other.loaded.routes_text
        kept = other.decide(other.encode(PROMPTS), tau=0.2)
        assert bytes_of(kept.result) == bytes_of(many.result) == bytes_of(other.route_many(PROMPTS, tau=0.2).result)
        for row, prompt in enumerate(PROMPTS):
            assert other.route(prompt, tau=0.2).qualities.tobytes() == many.qualities[row].tobytes()
    # another case and other white space are the same features and the same tokens: the same decision, to the bit
    again = engine.route_many([f"  {prompt.upper()}\n" for prompt in PROMPTS], tau=0.2)
    assert again.qualities.tobytes() == many.qualities.tobytes()
    new = add_model(root, listed(tmp_path / "new.json", 4), outcomes=source, created="2026-11-25").folder
    assert Bundle.load(new).quality_heads.tensors["tree_leaf"].shape[2] == 4
    assert Engine.load(new).route(PROMPTS[0], tau=1.0).model in NAMES
