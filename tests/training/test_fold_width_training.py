"""`ipr train --fold-width`: a table that reads full width forms as ASCII, from outcomes to a decision."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.cli import main
from ipr_engine.data.prompt_edits import EDITS
from ipr_engine.encoders.manifest import MANIFEST
from ipr_engine.errors import BundleNotFoundError, InvalidInputError
from ipr_engine.training.train_options import EncoderChoice
from tests.support.bundles import make_encoder
from tests.support.training_data import write_source

PROMPTS = ["prove the sum of it", "write a story of code", "explain python code", "what is it"]
WIDE = EDITS["full width"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("table"))


def test_the_embedded_table_folds_and_others_do_as_they_are_asked(table):
    for folders, asked, folds in (
        (None, None, True),
        ("default", None, True),
        ("default", False, False),
        (table, None, False),
        (table, True, True),
        (["surface", "default", table], None, [True, False, False, False]),
        (["surface", "default", table], True, [True, True, False, False]),
    ):
        sources = EncoderChoice(folders=folders, fold_width=asked).open().sources
        expected = folds if isinstance(folds, list) else [folds]
        assert [getattr(source, "fold_width", False) for source in sources] == expected


def test_ascii_is_embedded_to_the_same_bits(table):
    folding, plain = (EncoderChoice(folders=table, fold_width=asked).open().encoder for asked in (True, False))
    assert folding.identity != plain.identity
    assert folding.encode(PROMPTS).x.tobytes() == plain.encode(PROMPTS).x.tobytes()
    assert folding.encode(list(map(WIDE, PROMPTS))).x.tobytes() == plain.encode(PROMPTS).x.tobytes()


def test_folding_without_a_table_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")  # an export's
    for folders in (folder, [folder, "surface"]):
        with pytest.raises(InvalidInputError, match="fold_width: of a table, and every encoder here is a transformer"):
            EncoderChoice(folders=folders, fold_width=True).open()
    with pytest.raises(BundleNotFoundError, match="no such folder"):
        EncoderChoice(folders=tmp_path / "none", fold_width=True).open()


@pytest.mark.parametrize("asked", [True, False])
def test_the_command_line_takes_the_option(table, tmp_path, capsys, asked):
    pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")
    source = write_source(tmp_path / "made", ["m0", "m1", "m2"], PROMPTS)
    entries = [
        {"name": f"house/{m}", "source": f"m{m}", "family": "house", "provider": "test", "context_window": 4096}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m, "features": []}
        for m in range(3)
    ]
    (tmp_path / "candidates.json").write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    given = ["--outcomes", str(source), "--candidates", str(tmp_path / "candidates.json"), "--out", str(tmp_path / "r")]
    more = ["--encoder", str(table), "--estimator", "plain", "--allow-constant", "--no-standing"]
    assert main(["train", *given, *more, "--fold-width" if asked else "--no-fold-width"]) == 0
    assert Bundle.load(tmp_path / "r").encoders[0].fold_width == asked
    engine = Engine.load(tmp_path / "r")
    found, wide = engine.route_many(PROMPTS, tau=0.2), engine.route_many(list(map(WIDE, PROMPTS)), tau=0.2)
    assert (found.qualities.tobytes() == wide.qualities.tobytes()) == asked
    assert np.isfinite(wide.qualities).all()
