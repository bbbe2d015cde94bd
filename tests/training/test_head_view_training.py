"""`ipr train --head-tokens`: a table with a head view, from outcomes to a decision."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, with_extra_files
from ipr_engine.bundle.reliability import RELIABILITY, reliability_bytes
from ipr_engine.cli import main
from ipr_engine.encoders.manifest import MANIFEST
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.add.candidate_prior import mean_qualities
from ipr_engine.training.fitted_heads import predict
from ipr_engine.training.train_options import EncoderChoice
from tests.support import skips
from tests.support.bundles import make_encoder
from tests.support.training_data import HOUSE, PROMPTS, add_model, train, write_candidates, write_source

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

DIM = 16


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("data") / "made", ["m0", "m1", "m2", "m3"], PROMPTS)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("table"))


def listed(path, count):
    return write_candidates(path, HOUSE[:count])


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    return listed(tmp_path_factory.mktemp("candidates") / "candidates.json", 3)


@pytest.mark.parametrize("estimator", ["plain", "caps"])
def test_heads_read_both_means_and_support_reads_the_first(source, table, candidates, tmp_path, estimator):
    more = {"estimator": estimator, "allow_constant": True, "head_tokens": 2}
    made = train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", encoder=table, **more)
    bundle = Bundle.load(made.folder)
    assert bundle.quality_heads.tensors["skip"].shape == (3, 2 * DIM)
    assert bundle.quality_heads.tensors["len_skip"].shape == (3, 2 * DIM)
    assert bundle.support.centroids.shape[1] == DIM
    assert Engine(bundle).route(PROMPTS[0], tau=0.2).model in bundle.names
    new = add_model(tmp_path / "root", listed(tmp_path / "new.json", 4), outcomes=source, created="2026-11-25").folder
    added = Bundle.load(new)
    assert (added.encoders[0].head_tokens, len(added.names)) == (2, 4)
    assert added.quality_heads.tensors["skip"].shape == (4, 2 * DIM)


def test_centroids_stand_for_short_prompts_whose_two_means_are_the_same(source, table, candidates, tmp_path):
    more = {"estimator": "caps", "allow_constant": True, "head_tokens": 2}
    made = train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", encoder=table, **more)
    bundle = Bundle.load(with_extra_files(made.folder, {RELIABILITY: reliability_bytes({})}, root=tmp_path / "bare"))
    heads, centroids = bundle.quality_heads, np.asarray(bundle.support.centroids, np.float64)
    quality, _ = predict(heads.tensors, np.concatenate([centroids, centroids], axis=1), heads.activation)
    assert list(mean_qualities(bundle).values()) == pytest.approx(quality.mean(axis=0).tolist(), abs=1e-9)


def test_a_forest_stands_behind_both_means(source, table, candidates, tmp_path):
    pytest.importorskip("sklearn", reason=skips.TREES)
    more = {"estimator": "forest", "allow_constant": True, "head_tokens": 2, "options": {"trees": 8, "depth": 3}}
    made = train(source, candidates, tmp_path / "r", name="t", created="2026-11-24", encoder=[table, "surface"], **more)
    engine = Engine.load(made.folder)
    assert engine.loaded.routes_text
    assert engine.bundle.quality_heads.tensors["skip"].shape == (3, 2 * DIM)
    assert engine.bundle.support.centroids.shape[1] == DIM
    assert engine.route(PROMPTS[0], tau=0.2).model in engine.bundle.names


def test_the_view_is_of_the_last_table_named(table, tmp_path):
    other = make_encoder(tmp_path / "other", dim=8, seed=2)
    opened = EncoderChoice(folders=["surface", table, other], head_tokens=3).open()
    assert [getattr(source, "head_tokens", 0) for source in opened.sources] == [0, 3, 0, 0]
    assert opened.encoder.head_dim == 8
    assert opened.without_surface().encoder.head_dim == 8
    assert EncoderChoice(folders=table, head_tokens=3).open().encoder.head_dim == DIM
    assert EncoderChoice(folders=table).open().encoder.head_dim == 0


def test_a_view_of_a_transformer_is_refused(table, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")  # an export's
    for folders in (folder, [table, folder]):
        with pytest.raises(InvalidInputError, match="head_tokens: of a table, and model is a transformer"):
            EncoderChoice(folders=folders, head_tokens=3).open()
    with pytest.raises(InvalidInputError, match=r"head_tokens: expected an int in \[0, 2\^31\)"):
        EncoderChoice(folders=table, head_tokens=-3).open()


def test_a_view_of_more_tokens_than_the_table_reads_is_refused(table):
    with pytest.raises(
        InvalidInputError, match=r"head_tokens: expected at most 512, all that .* reads of a prompt, got 513"
    ):
        EncoderChoice(folders=table, head_tokens=513).open()
    assert EncoderChoice(folders=table, head_tokens=512).open().encoder.head_dim == DIM
    with pytest.raises(InvalidInputError, match="all that default reads"):
        EncoderChoice(head_tokens=1_000_000_000).open()


def test_the_command_line_takes_the_tokens(source, table, candidates, tmp_path, capsys):
    asked = ["--outcomes", str(source), "--candidates", str(candidates), "--out", str(tmp_path / "r")]
    more = ["--encoder", str(table), "--estimator", "plain", "--head-tokens", "2", "--allow-constant", "--no-standing"]
    assert main(["train", *asked, *more]) == 0
    assert Bundle.load(tmp_path / "r").encoders[0].head_tokens == 2
    capsys.readouterr()
    assert main(["info", "--bundle", str(tmp_path / "r")]) == 0
    assert "head of 2 tokens" in capsys.readouterr().out
