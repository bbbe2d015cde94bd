"""`ipr train --encoder surface`: features beside an encoder, from outcomes to a decision."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.cli import main
from ipr_engine.data import embed_prompts, load_outcomes
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.train_options import EncoderChoice
from tests.support.bundles import make_encoder
from tests.support.evaluation_data import evaluate_engine
from tests.support.training_data import add_model, train, write_source

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

NAMES = ("house/big", "house/small", "other/mid", "house/new")
PROMPTS = ["prove the sum", "write a story", "explain python code", "how many is the river?", "A) 1 B) 2"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("data") / "made", ["m0", "m1", "m2", "m3"], PROMPTS)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("table"))


def listed(path, count):
    entries = [
        {"name": NAMES[m], "source": f"m{m}", "family": "house", "provider": "test", "context_window": 4096}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m, "features": []}
        for m in range(count)
    ]
    path.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    return path


def fit(source, root, encoder, **more):
    more = {"estimator": "plain", "allow_constant": True, **more}
    candidates = listed(root.parent / "candidates.json", 3)
    return train(source, candidates, root, name="t", created="2026-11-24", encoder=encoder, **more).folder


def test_a_router_with_features_is_evaluated(source, table, tmp_path):
    engine = Engine.load(fit(source, tmp_path / "root", [table, "surface"]))
    figures = evaluate_engine(engine, load_outcomes(source), draws=3).figures
    assert figures["prediction"][0]


@pytest.mark.parametrize("encoder", ["first", "last"])
def test_features_come_last_wherever_the_word_stands(source, table, tmp_path, encoder):
    asked = ["surface", table] if encoder == "first" else [table, "surface"]
    bundle = Bundle.load(fit(source, tmp_path / "root", asked))
    dim = SurfaceEncoder.load().dim
    assert [(spec.id, spec.kind) for spec in bundle.encoders] == [
        ("static", "static"),
        ("surface", "surface"),
        ("side_by_side", "concatenated"),
    ]
    assert bundle.quality_heads.tensors["skip"].shape == (3, 16 + dim)
    assert bundle.support.centroids.shape[1] == 16


def test_a_bundle_with_features_decides_and_takes_a_model_more(source, table, tmp_path):
    root = tmp_path / "root"
    engine = Engine.load(fit(source, root, [table, "surface"], estimator="caps", cache=tmp_path / "cache"))
    assert engine.loaded.routes_text
    assert engine.route(PROMPTS[0], tau=0.2).model in NAMES
    assert not (tmp_path / "cache").exists()  # neither a table nor features are kept
    new = add_model(root, listed(tmp_path / "new.json", 4), outcomes=source, created="2026-11-25").folder
    added = Engine.load(new)
    assert added.bundle.names == NAMES
    assert added.route(PROMPTS[0], tau=1.0).model in NAMES


def test_a_fit_that_reads_no_features_says_so(source, table, tmp_path):
    told: list[str] = []
    fit(source, tmp_path / "both", [table, "surface"], progress=told.append)
    assert any("surface features" in line and "plain does not read them, forest does" in line for line in told)
    told.clear()
    fit(source, tmp_path / "table", [table], progress=told.append)
    assert not any("surface" in line for line in told)


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
        "plain",
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
