"""Tier "auto" times tiers of one identity once a machine and export, keeps the choice, and says which it took."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import replay
from ipr_engine.encoders import tier_choice
from ipr_engine.encoders.export import export_encoder
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.encoders.tier_choice import TierChoice, choice_file, choose, keep_choice, open_fastest, read_choice
from ipr_engine.errors import BackendUnavailableError
from tests.support import skips
from tests.support.bundles import with_heads_on
from tests.support.transformer_folders import make_sentence_transformer

for package in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=skips.EXPORT)

TIERS = ("onnx", "openvino")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = make_sentence_transformer(tmp_path_factory.mktemp("model"))
    return export_encoder(folder, tmp_path_factory.mktemp("export") / "out", max_tokens=48)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(tier_choice, "CACHE", tmp_path / "tiers")
    return tmp_path / "tiers"


class OnTier:
    """The onnx tier under a name, so that no test depends on which is faster; it counts what is opened."""

    def __init__(self, export, scale=None):
        from ipr_engine.encoders.onnx import OnnxEncoder

        self.opened, self.scale = [], scale or {}
        self.encoder = lambda: OnnxEncoder(export, threads=1)

    def __call__(self, name):
        self.opened.append(name)
        encoder = self.encoder()
        embed, factor = encoder.embed, self.scale.get(name)
        if isinstance(factor, Exception):
            raise factor
        if factor is not None:
            encoder.embed = lambda ids: (embed(ids) * factor).astype(np.float32)
        return encoder


@pytest.mark.parametrize(
    ("onnx", "openvino", "taken"),
    [
        ([10.0, 10.0, 11.0], [8.9, 8.8, 9.9], "openvino"),
        ([10.0, 10.0, 11.0], [9.1, 9.1, 9.9], "onnx"),
        ([10.0, 10.0, 11.0], [20.0, 20.0, 20.0], "onnx"),
        ([10.0, 40.0, 90.0], [9.9, 11.0, 12.0], "onnx"),  # others were at work: the least of both say the same
    ],
)
def test_a_later_tier_is_taken_only_where_it_gains_a_tenth_in_the_median_and_in_the_least(onnx, openvino, taken):
    assert choose({"onnx": onnx, "openvino": openvino}, 64).tier == taken


def test_the_choice_is_made_once_and_stands_in_the_summary_and_the_log(export, cache, caplog):
    opens = OnTier(export)
    with caplog.at_level(logging.INFO):
        first = open_fastest(export, TIERS, opens, threads=1, dtype=None)
    assert opens.opened == ["onnx", "openvino"]
    (file,) = cache.iterdir()
    held = json.loads(file.read_text())
    assert set(held) == {"tier", "ms", "tokens"}
    assert first.summary.endswith(f"tokenizer, auto took {held['tier']} ({first.chosen.partition('(')[2]}")
    assert f"model: {first.chosen}, measured in " in caplog.text.replace(export.name, "model")
    assert str(file) in caplog.text
    again = open_fastest(export, TIERS, opens, threads=1, dtype=None)
    assert opens.opened == ["onnx", "openvino", held["tier"]]
    assert again.chosen == first.chosen


def test_a_kept_choice_is_obeyed_and_another_tier_can_be_asked_for(export):
    if find_spec("openvino") is None:
        pytest.skip(skips.OPENVINO)
    keep_choice(
        choice_file(export, TIERS, 1, None),
        TierChoice(tier="openvino", ms={"onnx": 2, "openvino": 1}, tokens=48),
        TIERS,
    )
    told = "auto took openvino (onnx 2.0 ms, openvino 1.0 ms at 48 tokens)"
    taken = open_encoder(export.folder, threads=1)
    assert taken.summary == f"openvino 32-d float32 on 1 thread, wordpiece tokenizer, {told}"
    by_name = open_encoder(export.folder, threads=1, tier="onnx")
    assert by_name.summary == "onnx 32-d float32 on 1 thread, wordpiece tokenizer"
    assert by_name.identity == taken.identity


def test_a_choice_is_of_one_export_number_of_threads_processor_and_release(export, monkeypatch):
    files = [choice_file(export, TIERS, threads, None) for threads in (1, 2, None)]
    files.append(choice_file(replace(export, sha256="0" * 64), TIERS, 1, None))
    monkeypatch.setattr(tier_choice, "_processor", lambda: "another")
    files.append(choice_file(export, TIERS, 1, None))
    monkeypatch.setattr(tier_choice, "_version", lambda package: "another")
    files.append(choice_file(export, TIERS, 1, None))
    assert len(set(files)) == 6


@pytest.mark.parametrize(
    "held",
    [
        "", "{}", "[]", '{"tier": "torch", "ms": {}, "tokens": 1}', '{"tier": "onnx"}', "[" * 100_000,
        '{"tier": "onnx", "ms": {}, "tokens": Infinity}', '{"tier": "onnx", "ms": {"onnx": 1' + "0" * 400 + '}, "tokens": 1}',
    ],
    ids=range(8),
)  # fmt: skip
def test_a_file_that_holds_no_choice_of_these_tiers_counts_as_none(export, cache, held):
    file = choice_file(export, TIERS, 1, None)
    file.parent.mkdir()
    file.write_text(held)
    assert read_choice(file, TIERS) is None
    assert open_fastest(export, TIERS, OnTier(export), threads=1, dtype=None).chosen is not None
    assert read_choice(file, TIERS) is not None


def test_of_processes_that_start_together_the_first_choice_counts(export):
    file = choice_file(export, TIERS, 1, None)
    choices = [TierChoice(tier=name, ms={"onnx": 2.0, "openvino": 1.0}, tokens=48) for name in TIERS]
    assert keep_choice(file, choices[0], TIERS) == choices[0]
    assert keep_choice(file, choices[1], TIERS) == choices[0]
    assert [found.name for found in file.parent.iterdir()] == [file.name]


def test_where_the_file_system_has_no_links_a_choice_is_kept_too(export, monkeypatch):
    def refuse(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(tier_choice.os, "link", refuse)
    file, choice = choice_file(export, TIERS, 1, None), TierChoice(tier="onnx", ms={"onnx": 2.0}, tokens=48)
    assert keep_choice(file, choice, TIERS) == choice == read_choice(file, TIERS)


def test_where_nothing_can_be_kept_it_is_measured_and_told(export, cache, caplog):
    cache.write_text("a file where the folder would be")
    with caplog.at_level(logging.INFO):
        assert open_fastest(export, TIERS, OnTier(export), threads=1, dtype=None).chosen.startswith("auto took ")
    assert "not kept: [Errno" in caplog.text


def test_a_user_without_a_home_is_served(export, monkeypatch, caplog):
    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(tier_choice, "choice_file", homeless)
    with caplog.at_level(logging.INFO):
        assert open_fastest(export, TIERS, OnTier(export), threads=1, dtype=None).chosen.startswith("auto took ")
    assert "not kept" in caplog.text


@pytest.mark.parametrize("factor", [BackendUnavailableError("it cannot"), np.nan])
def test_a_later_tier_that_fails_or_embeds_otherwise_is_left_out_with_a_warning(export, cache, caplog, factor):
    opens = OnTier(export, {"openvino": factor})
    taken = open_fastest(export, TIERS, opens, threads=1, dtype=None)
    assert taken.summary == "onnx 32-d float32 on 1 thread, wordpiece tokenizer"
    assert "auto leaves out openvino: " in caplog.text
    assert not cache.exists()  # the next load looks again


def test_a_kept_tier_that_fails_by_now_is_left_out_and_the_first_one_serves(export, caplog):
    file = choice_file(export, TIERS, 1, None)
    keep_choice(file, TierChoice(tier="openvino", ms={"onnx": 2, "openvino": 1}, tokens=48), TIERS)
    opens = OnTier(export, {"openvino": BackendUnavailableError("libopenvino.so: cannot open shared object file")})
    taken = open_fastest(export, TIERS, opens, threads=1, dtype=None)
    assert taken.chosen is None
    assert "auto took openvino before, and it fails now: libopenvino.so" in caplog.text
    assert read_choice(file, TIERS).tier == "openvino"  # kept: it may come back


def test_the_first_tier_fails_as_it_does_alone(export):
    with pytest.raises(BackendUnavailableError, match="it cannot"):
        open_fastest(
            export, TIERS, OnTier(export, {"onnx": BackendUnavailableError("it cannot")}), threads=1, dtype=None
        )


def test_one_tier_alone_is_never_timed(export, monkeypatch):
    monkeypatch.setattr(tier_choice, "measure", lambda *_: pytest.fail("timed"))
    assert open_encoder(export.folder, threads=1, tier="onnx").chosen is None
    monkeypatch.setattr("ipr_engine.encoders.registry.TIMED", ("onnx",))
    assert open_encoder(export.folder, threads=1).chosen is None


def test_an_engine_says_what_auto_took_and_ipr_info_does_too(export, tmp_path, capsys):
    from ipr_engine.cli import main

    if find_spec("openvino") is None:
        pytest.skip(skips.OPENVINO)
    bundle = with_heads_on(export.bundle_source("transformer"), tmp_path)
    told = repr(Engine.load(bundle, threads=1))
    assert ", wordpiece tokenizer, auto took " in told
    assert main(["info", "--bundle", str(bundle), "--threads", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engine"] == told


def test_a_record_tells_which_tier_embedded_the_prompt(export, tmp_path):
    if find_spec("openvino") is None:
        pytest.skip(skips.OPENVINO)
    bundle, told = with_heads_on(export.bundle_source("transformer"), tmp_path), []
    for tier in TIERS:
        choice = TierChoice(tier=tier, ms={"onnx": 2, "openvino": 1}, tokens=48)
        file = choice_file(export, TIERS, 1, None)
        file.unlink(missing_ok=True)
        keep_choice(file, choice, TIERS)
        engine = Engine.load(bundle, threads=1)
        recorder = engine.recorder(told.append)
        recorder.route("what is the story", tau=0.2)
        recorder.decide(engine.encode(["what is the story"]), tau=0.2)
    assert [Record.from_line(line).encoder_tier for line in told] == ["onnx", None, "openvino", None]
    assert [replayed.differences for replayed in replay(told, engine)] == [()] * 4
