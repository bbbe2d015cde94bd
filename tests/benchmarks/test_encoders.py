"""ipr bench encoder: what runs is timed in turns on prompts of exact lengths, what does not is told; figures follow from the times."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.encoders import roofs
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from tests.support import skips
from tests.support.transformer_folders import import_torch, make_bare_transformer, make_export_without_graph

pytest.importorskip("threadpoolctl", reason=skips.EVAL)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    import_torch()
    folder = tmp_path_factory.mktemp("tiny")
    return make_export_without_graph(make_bare_transformer(folder / "model"), folder / "export")


@pytest.fixture(scope="module")
def lines(export):
    from benchmarks.encoders.run import Settings, bench_encoder

    settings = Settings(lengths=(4, 9, 99), batches=(1, 2), mixed=(3,), most_ids=16, threads=1, seconds=0.01)
    said: list[str] = []
    return [*bench_encoder(export, None, settings, said.append)], said


def test_every_cell_has_a_line_a_stage_and_none_else(lines):
    timed = [line for line in lines[0] if line.get("impl") == "torch"]
    cells = {(line["tokens"], line["batch"], line["stage"]) for line in timed}
    stages = ("tokenize", "embed", "encode")
    wanted = [("4", 1), ("4", 2), ("9", 1), ("mixed 8-48", 3)]
    assert cells == {(tokens, batch, stage) for tokens, batch in wanted for stage in stages}
    assert all(line["p50_us"] > 0 and line["rounds"] >= 5 for line in timed)
    assert {line["vs_base"] for line in timed} == {1.0}
    assert [line["batch"] for line in lines[0] if line["impl"] == "decide"] == [1, 2]


def test_prompts_have_exactly_the_ids_asked_for(lines):
    asked = {line["tokens"]: line["ids"] / line["batch"] for line in lines[0] if line.get("stage") == "embed"}
    assert (asked["4"], asked["9"]) == (4, 9)


def test_what_is_left_out_and_what_cannot_run_is_told(lines):
    said = "\n".join(lines[1])
    assert "99 tokens are left out: the export takes 48 at most" in said
    assert "9 tokens x 2 are left out: more than 16 ids a call" in said
    absent = lines[0][0]["absent"]
    assert {"onnx", "onnx int8", "tensorrt", "sentence-transformers"} <= set(absent)
    assert "--model" in absent["sentence-transformers"]


def test_lines_are_json_and_tables_show_every_subject(lines, tmp_path):
    from benchmarks.encoders.tables import plot, tables

    json.dumps(lines[0], allow_nan=False)
    text = tables(lines[0])
    assert "| 4 x 1 |" in text
    assert "Not run: onnx (" in text
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    assert plot(lines[0], tmp_path / "encoder.png").read_bytes()[:4] == b"\x89PNG"


def test_flops_are_those_of_the_matrix_products():
    sizes = {"hidden": 384, "layers": 6, "inner": 1536}
    matrices = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert roofs.weight_bytes(sizes, bytes_each=4) == 4 * matrices
    attention = 6 * 4 * 10 * 10 * 384  # scores and their weighted sum, 2 operations each
    assert roofs.flops(sizes, [10]) == 2 * matrices * 10 + attention
    assert roofs.flops(sizes, [10, 10]) == 2 * roofs.flops(sizes, [10])


def test_roofs_are_measured():
    found = roofs.measure_roofs(1, seconds=0.05)
    assert np.isfinite([found.gflops, found.gb_per_s]).all()
    assert min(found.gflops, found.gb_per_s) > 0


def test_an_unknown_subject_is_told_with_the_known_ones(export):
    from benchmarks.encoders.run import Settings, bench_encoder

    with pytest.raises(InvalidInputError, match=r"only: expected some of onnx, .*; got onyx"):
        next(bench_encoder(export, None, Settings(only=["onyx"], threads=1), print))


def test_bad_settings_are_named(export):
    from benchmarks.encoders.run import Settings, bench_encoder

    for arguments, named in (
        ({"lengths": ()}, "lengths"),
        ({"batches": (0,)}, "batches"),
        ({"seconds": 0.0}, "seconds"),
    ):
        with pytest.raises(InvalidInputError, match=named):
            Settings(**arguments)
    with pytest.raises(BackendUnavailableError, match="no tier and no peer can run here"):
        next(bench_encoder(export, None, Settings(only=["OpenVINO"], threads=1), print))
