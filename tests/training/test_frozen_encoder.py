"""ipr train on a transformer, or on encoders side by side: what is written, what is embedded, and the whole way to two tiers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.two_tiers import two_tiers
from ipr_engine.cli import main
from ipr_engine.data import EmbeddingCache, embed_prompts, load_outcomes
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.train_options import EncoderChoice
from tests.support.bundles import make_encoder
from tests.support.evaluation_data import evaluate_engine
from tests.support.training_data import add_model, train, write_candidates, write_source
from tests.support.transformer_folders import (
    import_torch,
    make_bare_transformer,
    make_export_without_graph,
    make_sentence_transformer,
)

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

NAMES = ("house/big", "house/small", "other/mid")
PROMPTS = [
    "prove the sum",
    "write a story",
    "explain python code",
    "how is the river in the end",
    "what to code and why",
]
TORCH = LoadOptions(tier="torch")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("data") / "made", ["m0", "m1", "m2", "m3"], PROMPTS)


def listed(path, count):
    return write_candidates(path, (*NAMES, "house/new")[:count])


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    return listed(tmp_path_factory.mktemp("c") / "candidates.json", 3)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return make_export_without_graph(
        make_bare_transformer(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("m") / "export"
    )


def fit(source, candidates, root, encoder, **more):
    more = {"estimator": "plain", "encoder_options": TORCH, **more}
    return train(
        source, candidates, root, name="t", created="2026-11-24", allow_constant=True, encoder=encoder, **more
    ).folder


def test_tables_side_by_side_need_nothing_but_tables(source, candidates, table, tmp_path):
    other = make_encoder(tmp_path / "other", dim=8, seed=2)
    bundle = Bundle.load(fit(source, candidates, tmp_path / "root", [table, other]))
    assert [(spec.id, spec.dim) for spec in bundle.encoders] == [("static", 16), ("static_2", 8), ("side_by_side", 24)]
    assert (bundle.quality_heads.encoder, bundle.support.encoder) == ("side_by_side", "side_by_side")
    x = Engine(bundle).encode(PROMPTS).x
    parts = [StaticEncoder.from_folder(folder).encode(PROMPTS).x for folder in (table, other)]
    np.testing.assert_array_equal(x, np.concatenate(parts, axis=1))


def test_one_table_is_written_as_one_static_encoder(source, candidates, table, tmp_path):
    bundle = Bundle.load(fit(source, candidates, tmp_path / "root", table))
    assert [(spec.id, spec.kind) for spec in bundle.encoders] == [("static", "static")]


def test_default_is_the_embedded_table(tmp_path):
    by_name, by_none = EncoderChoice(folders="default").open(), EncoderChoice().open()
    assert by_name.encoder.identity == by_none.encoder.identity == Engine.load().encoder.identity
    with pytest.raises(InvalidInputError, match="one twice among default, default"):
        EncoderChoice(folders=["default", "default"]).open()


def test_an_export_is_contained_and_a_transformers_folder_is_referenced(source, candidates, export, tmp_path):
    import_torch()
    folder = make_sentence_transformer(tmp_path / "st")
    with pytest.raises(InvalidInputError, match=r"encoder: st is a transformers folder.*export it first"):
        EncoderChoice(folders=folder).open()
    contained = Bundle.load(fit(source, candidates, tmp_path / "a", export))
    assert contained.encoders[0].files.keys() == {"manifest", "config", "tokenizer", "weights"}
    referenced = Bundle.load(fit(source, candidates, tmp_path / "b", folder, contained=False, max_tokens=40))
    assert (referenced.encoders[0].files, referenced.encoders[0].name) == ({}, "st")
    engine = Engine(referenced, tier="torch", encoder_folders=[folder])
    assert engine.encoder.identity == referenced.encoders[0].identity
    assert engine.route(PROMPTS[0], tau=0.2).model in NAMES


def test_a_transformer_embeds_a_prompt_once_for_every_bundle(source, candidates, table, export, tmp_path, monkeypatch):
    import_torch()
    from ipr_engine.encoders.torch import TorchEncoder

    asked = []
    plain = TorchEncoder.encode
    monkeypatch.setattr(TorchEncoder, "encode", lambda self, prompts: asked.extend(prompts) or plain(self, prompts))
    cache = tmp_path / "cache"
    fit(source, candidates, tmp_path / "alone", export, cache=cache)
    train_prompts = load_outcomes(source, split="train").prompts
    assert sorted(asked) == sorted(train_prompts)
    fit(source, candidates, tmp_path / "both", [table, export], cache=cache)
    folder = add_model(
        tmp_path / "both",
        listed(tmp_path / "new.json", 4),
        outcomes=source,
        created="2026-11-25",
        encoder_options=TORCH,
        cache=cache,
    ).folder
    assert len(asked) == len(train_prompts)
    assert Bundle.load(folder).names == (*NAMES, "house/new")


def test_embeddings_through_a_cache_of_parts_are_those_without(table, tmp_path):
    encoder = EncoderChoice(folders=[table, make_encoder(tmp_path / "other", dim=8, seed=2)]).open().encoder
    plain = encoder.encode(PROMPTS)
    for made in (
        embed_prompts(encoder, PROMPTS),
        embed_prompts(encoder, PROMPTS, cache=tmp_path / "cache"),
        EmbeddingCache(tmp_path / "c").embed(encoder, PROMPTS),
        EmbeddingCache(tmp_path / "c").embed(encoder, PROMPTS),
    ):
        np.testing.assert_array_equal(made.x, plain.x)
        np.testing.assert_array_equal(made.billed_tokens, plain.billed_tokens)
        np.testing.assert_array_equal(made.truncated, plain.truncated)


def test_from_outcomes_to_two_tiers_by_the_command_line(source, candidates, table, export, tmp_path, capsys):
    import_torch()
    common = [
        "--outcomes",
        str(source),
        "--candidates",
        str(candidates),
        "--estimator",
        "plain",
        "--allow-constant",
        "--cache",
        str(tmp_path / "cache"),
    ]
    encoders = {"first": [str(table)], "second": [str(table), str(export)]}
    for name, folders in encoders.items():
        asked = [part for folder in folders for part in ("--encoder", folder)]
        assert main(["train", *common, *asked, "--tier", "torch", "--out", str(tmp_path / name)]) == 0
    roots = [str(tmp_path / name) for name in encoders]
    assert main(["escalate", *roots, "--gap", "0.1", "--out", str(tmp_path / "joined")]) == 0
    bundle = ["--bundle", str(tmp_path / "joined"), "--tier", "torch"]
    capsys.readouterr()
    assert main(["route", *PROMPTS, "--json", "--tau", "0.1", *bundle]) == 0
    escalated = {json.loads(line)["decision"]["escalated"] for line in capsys.readouterr().out.splitlines()}
    assert escalated <= {True, False}
    engine = Engine.load(tmp_path / "joined", tier="torch")
    assert "static 16-d" in repr(engine)
    assert "torch 32-d" in repr(engine)
    always = engine.route_many(PROMPTS, tau=0.1, escalate_below=np.inf)
    alone = Engine.load(tmp_path / "second", tier="torch").route_many(PROMPTS, tau=0.1)
    np.testing.assert_allclose(always.qualities, alone.qualities, atol=1e-5)
    assert (
        main(["eval", "--outcomes", str(source), "--draws", "5", "--json", "--cache", str(tmp_path / "cache"), *bundle])
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert "where the gap is below 0.1 again by the second heads" in report["about"]["decided by"]


def test_evaluation_at_no_gap_and_at_every_gap_is_that_of_a_tier_alone(source, candidates, table, tmp_path):
    other = make_encoder(tmp_path / "other", dim=8, seed=2)
    tiers = [Bundle.load(fit(source, candidates, tmp_path / str(i), e)) for i, e in enumerate((table, [table, other]))]
    data = load_outcomes(source)

    def found(bundle):
        return evaluate_engine(Engine(bundle), data, draws=3).figures

    alone = [found(bundle) for bundle in tiers]
    for gap, own in ((0.0, alone[0]), (1e9, alone[1])):
        folder = two_tiers(*tiers, gap=gap, root=tmp_path / f"j{gap}", provenance={})
        assert found(Bundle.load(folder))["prediction"][0] == own["prediction"][0]  # the router's


def test_data_embed_takes_an_export(source, export, tmp_path, capsys):
    import_torch()
    arguments = [
        "data",
        "embed",
        str(source),
        "--encoder",
        str(export),
        "--cache",
        str(tmp_path),
        "--tier",
        "torch",
        "--json",
    ]
    assert main(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["prompts"], facts["dim"]) == (160, 32)
