"""`ipr train --conversation`: what of several turns a new bundle's heads are given."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.cli import main
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.train_options import EncoderChoice
from tests.support.bundles import make_encoder
from tests.support.conversations import chat
from tests.support.training_data import HOUSE, PROMPTS, add_model, train, write_candidates, write_source

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")


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


def test_heads_on_a_table_are_given_turns_by_recency_unless_they_say_otherwise(source, table, candidates, tmp_path):
    made = {}
    for said in (None, "all", "last", "recency"):
        more = {} if said is None else {"conversation": said}
        root = tmp_path / str(said)
        made[said] = train(
            source, candidates, root, name="t", created="2026-11-24", encoder=[table, "surface"], estimator="plain",
            allow_constant=True, **more,
        ).folder  # fmt: skip
    given = {said: Bundle.load(folder).quality_heads.conversation for said, folder in made.items()}
    assert given == {None: "recency", "all": "all", "last": "last", "recency": "recency"}
    assert json.loads((made["all"] / "bundle.json").read_text())["schema_version"] < 9
    engines = {said: Engine.load(folder) for said, folder in made.items()}
    weights = {(folder / "heads" / "trained.safetensors").read_bytes() for folder in made.values()}
    assert len(weights) == 1  # heads are fitted on single texts
    assert len({engines[said].encode(chat(PROMPTS)).x.tobytes() for said in given}) == 3


def test_a_model_that_is_added_keeps_what_heads_are_given(source, table, candidates, tmp_path):
    more = {"estimator": "plain", "allow_constant": True, "conversation": "last"}
    train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", encoder=table, **more)
    new = add_model(tmp_path / "root", listed(tmp_path / "new.json", 4), outcomes=source, created="2026-11-25").folder
    assert Bundle.load(new).quality_heads.conversation == "last"


def test_the_choice_stays_with_tasks_and_without_surface_features(table):
    opened = EncoderChoice(folders=[table, "surface"], conversation="last").open()
    assert opened.conversation == "last"
    assert opened.with_tasks(["code"]).conversation == "last"
    assert opened.with_tasks(["code"]).without_surface().conversation == "last"


def test_a_transformer_joins_turns_and_weighs_none(table, tmp_path, monkeypatch):
    class Model:
        dim, max_tokens, identity, summary, tier, native = 4, 9, "m" * 64, "a model", "torch", None

        def encode(self, prompts):
            rows = len(prompts)
            return Encoded(np.zeros((rows, 4), np.float32), np.ones(rows, np.int64), np.zeros(rows, np.bool_))

    opened = EncoderChoice(folders=table).open()
    open_one = EncoderChoice._open_one  # noqa: SLF001  no model of the tests is opened without torch

    def opening(self, folder, *more, **options):
        if folder != "model":
            return open_one(self, folder, *more, **options)
        from ipr_engine.bundle import TransformerSource

        fields = {
            "dim": 4,
            "max_tokens": 9,
            "pooling": "mean",
            "normalize": True,
            "dtype": None,
            "name": "m",
            "revision": None,
            "files": {},
        }
        return Model(), TransformerSource(id="model", identity="m" * 64, **fields)

    monkeypatch.setattr(EncoderChoice, "_open_one", opening)
    for folders in ("model", ["model", table], [table, "model", "surface"]):
        assert EncoderChoice(folders=folders).open().conversation == "all"
        assert EncoderChoice(folders=folders, conversation="last").open().conversation == "last"
        with pytest.raises(
            InvalidInputError, match="conversation: recency is of tables alone, and one encoder here is a tr"
        ):
            EncoderChoice(folders=folders, conversation="recency").open()
    assert opened.conversation == "recency"
    with pytest.raises(InvalidInputError, match="conversation: expected one of all, last, recency, got 'first'"):
        EncoderChoice(folders=table, conversation="first").open()


def test_the_command_line_takes_it_and_info_tells_it(source, table, candidates, tmp_path, capsys):
    asked = ["--outcomes", str(source), "--candidates", str(candidates), "--out", str(tmp_path / "r")]
    more = [
        "--encoder",
        str(table),
        "--estimator",
        "plain",
        "--conversation",
        "last",
        "--allow-constant",
        "--no-standing",
    ]
    assert main(["train", *asked, *more]) == 0
    capsys.readouterr()
    assert main(["info", "--bundle", str(tmp_path / "r")]) == 0
    assert "of several turns of a user, encoded: the last one that has a token\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", *asked, "--conversation", "first"])
