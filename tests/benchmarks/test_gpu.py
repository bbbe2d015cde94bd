"""What goes to a machine with a GPU: the tree that is carried, and every part of the benchmark taken on a CPU first."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support import skips
from tests.support.places import ROOT
from tests.support.transformer_folders import import_torch, make_bare_transformer, make_sentence_transformer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    import_torch()
    return make_bare_transformer(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def pack(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.gpu.pack")


def test_the_carried_tree_has_code_tests_extension_and_half_the_weights_bytes(pack, encoder, tmp_path):
    from safetensors.torch import load_file

    dest = tmp_path / "tree"
    assert 0 < pack.pack(encoder, dest) < pack.LIMIT_MIB
    for name in (
        "benchmarks/gpu.sh",
        "kernels/decide.py",
        "tests/support/decide_implementations.py",
        "COMMIT",
    ):
        assert (dest / name).is_file(), name
    assert list((dest / "ipr_engine").glob("_C*.so"))
    assert not [path for path in dest.rglob("*") if path.suffix in (".png", ".svg")]
    assert {str(value.dtype) for value in load_file(dest / "encoder/model.safetensors").values()} == {"torch.float16"}
    assert json.loads((dest / "encoder/config.json").read_text()) == json.loads((encoder / "config.json").read_text())


def test_a_tree_that_is_too_large_or_cannot_be_written_is_refused(pack, encoder, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"ENCODER_DIR: expected a folder with model\.safetensors"):
        pack.pack(tmp_path, tmp_path / "tree")
    with pytest.raises(SystemExit, match="DEST: expected a path that does not exist"):
        pack.pack(encoder, tmp_path)
    with monkeypatch.context() as patch:
        stale = tmp_path / "_C.so"
        stale.touch()
        os.utime(stale, (0, 0))
        patch.setattr(pack, "_extensions", lambda: [stale])
        with pytest.raises(SystemExit, match=r"_C\.so: older than .*; build it again"):
            pack.pack(encoder, tmp_path / "tree")
    monkeypatch.setattr(pack, "LIMIT_MIB", 1)
    with pytest.raises(SystemExit, match=r"DEST: \d+\.\d MiB, more than the 1 that can be carried"):
        pack.pack(encoder, tmp_path / "tree")


def run_parts(encoder, results, *parts, **given):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHON": sys.executable, "IPR_RESULTS": str(results), "IPR_DEVICE": "cpu", **given}
    return subprocess.run(
        ["sh", "benchmarks/gpu.sh", str(encoder), *parts],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_parts_append_to_a_folder_and_keep_what_was_measured_before_one_fails(encoder, tmp_path):
    pytest.importorskip("triton", reason=skips.GPU)
    broken = shutil.copytree(encoder, tmp_path / "broken")
    (broken / "tokenizer.json").unlink()
    done = run_parts(broken, tmp_path, "text", "roofs", IPR_POOLING="mean")
    assert done.returncode == 1
    assert "failed: text" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [line["error"] for line in lines if line["op"] == "text"]
    assert lines[-1]["op"] == "roof"  # what comes after the part that failed
    assert all("is no figure" in line["note"] for line in lines)
    assert "== text" in (tmp_path / "gpu.log").read_text()


def test_a_part_that_is_none_is_told(encoder, tmp_path):
    done = run_parts(encoder, tmp_path / "gpu.jsonl", "speed")
    assert done.returncode == 2
    assert "PART: expected one of floor encoder fused host decide last text" in done.stdout
    done = run_parts(
        tmp_path / "nowhere", tmp_path / "gpu.jsonl", "floor"
    )  # device time is short: told before it is used
    assert done.returncode == 2
    assert f"ENCODER_DIR: expected a folder, got {tmp_path / 'nowhere'}" in done.stdout


@pytest.mark.parametrize(
    ("fails", "told"), [("transformers", "PYTHON: expected one with torch"), ("is_available", "IPR_DEVICE: ")]
)
def test_a_machine_without_a_gpu_or_its_packages_is_told_once_before_anything_runs(encoder, tmp_path, fails, told):
    asked, python = tmp_path / "asked", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncase $* in *{fails}*) exit 1 ;; esac\n')
    python.chmod(0o755)
    done = run_parts(
        encoder, tmp_path / "gpu.jsonl", "floor", "roofs", PYTHON=str(python), IPR_DEVICE="cuda", IPR_POOLING="cls"
    )
    assert done.returncode == 2
    assert done.stdout.startswith(told)
    assert "benchmarks.gpu" not in asked.read_text()


def test_what_the_environment_asks_for_is_told_before_anything_runs(encoder, tmp_path):
    for given, told in (
        ({"IPR_DEVICE": "CPU"}, "IPR_DEVICE: expected cpu or cuda, got CPU"),
        (
            {"IPR_RESULTS": str(tmp_path / "none" / "gpu.jsonl")},
            "IPR_RESULTS: expected a file in a folder that is there, or a folder, got ",
        ),
    ):
        done = run_parts(encoder, tmp_path / "gpu.jsonl", "floor", IPR_POOLING="cls", **given)
        assert done.returncode == 2
        assert done.stdout.startswith(told)


def test_a_path_is_the_callers_who_may_stand_elsewhere(encoder, tmp_path, stand_in):
    python, asked = stand_in
    environment = os.environ | {"PYTHON": str(python), "IPR_DEVICE": "cpu", "IPR_POOLING": "cls", "IPR_RESULTS": "here"}
    (tmp_path / "here").mkdir()
    shutil.copytree(encoder, tmp_path / "mine")
    done = subprocess.run(
        ["sh", str(ROOT / "benchmarks/gpu.sh"), "mine", "floor"], cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0
    [call] = [call for call in asked.read_text().splitlines() if "-m benchmarks.gpu floor" in call]
    assert f"floor {tmp_path}/mine " in call
    assert f"--out {tmp_path}/here/gpu.jsonl" in call


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_part_that_runs_and_no_other_begins(encoder, tmp_path, sent):
    python, began = tmp_path / "python", tmp_path / "began"
    python.write_text(
        f"#!/bin/sh\ncase $* in *benchmarks.gpu*) echo $$ >> {began}; exec sleep 60 ;; *__file__*) echo {sys.executable} ;; esac\n"
    )
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "IPR_DEVICE": "cpu", "IPR_POOLING": "cls", "IPR_RESULTS": ""}
    running = subprocess.Popen(
        ["sh", "benchmarks/gpu.sh", str(encoder), "floor", "host"],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    until(lambda: began.exists() and began.read_text().endswith("\n"))
    os.killpg(running.pid, sent)  # as a terminal does
    assert running.wait(timeout=20) == 130
    [part] = began.read_text().split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(part), 0)


def until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_folder_of_transformers_alone_is_taken_with_a_pooling(encoder, tmp_path):
    done = run_parts(encoder, tmp_path / "gpu.jsonl", "text")
    assert done.returncode == 2
    assert "does not say how it pools; set IPR_POOLING=mean, cls or last" in done.stdout
    done = run_parts(encoder, tmp_path / "gpu.jsonl", "text", IPR_POOLING="max")
    assert done.returncode == 2
    assert "IPR_POOLING: expected mean, cls or last, got max" in done.stdout


@pytest.fixture
def stand_in(tmp_path):
    """A Python that writes down what it is asked, and has an extension that is older than its source."""
    stale, asked, python = (tmp_path / name for name in ("_C.so", "asked", "python"))
    stale.touch()
    os.utime(stale, (0, 0))
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\ncase $* in *__file__*) echo {stale} ;; *force*) exit $FAILS ;; esac\n'
    )
    python.chmod(0o755)
    return python, asked


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_extension_older_than_its_source_is_told_and_built_again_before_it_is_measured(
    encoder, tmp_path, stand_in, device
):
    python, asked = stand_in
    given = {"PYTHON": str(python), "IPR_DEVICE": device, "IPR_POOLING": "cls", "FAILS": "0"}
    done = run_parts(encoder, tmp_path / "gpu.jsonl", "floor", **given)
    assert done.returncode == 0, done.stdout
    assert "ipr_engine._C is older than csrc/" in done.stdout
    calls = asked.read_text().splitlines()
    built = [at for at, call in enumerate(calls) if "build_ext --inplace --force" in call]
    [measured] = [at for at, call in enumerate(calls) if "-m benchmarks.gpu floor" in call]
    assert "--pooling cls" in calls[measured]
    assert built == ([] if device == "cpu" else [measured - 2])  # the import is tried in between


def test_nothing_is_measured_where_the_extension_does_not_build(encoder, tmp_path, stand_in):
    python, asked = stand_in
    given = {"PYTHON": str(python), "IPR_DEVICE": "cuda", "IPR_POOLING": "cls", "FAILS": "1"}
    done = run_parts(encoder, tmp_path / "gpu.jsonl", "floor", **given)
    assert done.returncode == 1
    assert "ipr_engine does not build here" in done.stdout
    assert "benchmarks.gpu floor" not in asked.read_text()


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """An encoder that the fused kernels compute."""
    import_torch()
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 1}
    return make_sentence_transformer(tmp_path_factory.mktemp("fused"), **sizes)


@pytest.mark.slow
def test_the_fused_encoder_is_correct_then_measured_then_tuned(fused, tmp_path):
    pytest.importorskip("triton", reason=skips.GPU)
    done = run_parts(fused, tmp_path, "encoder", "tune_encoder")
    assert done.returncode == 0, done.stdout[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert min(line["least_cosine"] for line in lines if line.get("what") == "gate") > 0.9999
    assert {line.get("impl") for line in lines if line.get("as") == "node"} == {"fused", "torch float16"}
    assert {line["rows"] for line in lines if line["op"] == "tune_encoder"} == {"few", "some", "many"}
    assert not [line for line in lines if "error" in line]


@pytest.mark.slow
def test_text_to_decision_through_the_fused_encoder_and_the_hosts_part_alone_are_measured(fused, tmp_path):
    pytest.importorskip("triton", reason=skips.GPU)
    done = run_parts(fused, tmp_path, "fused", "host")
    assert done.returncode == 0, done.stdout[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    whole = [line for line in lines if line["op"] == "text to decision"]
    assert {(line["tier"], line["impl"]) for line in whole} >= {("triton", "one graph, one C++ call")}
    host = [line for line in lines if line["op"] == "host"]
    assert {line["what"] for line in host} >= {"Engine.route, one C++ call", "Engine.route_many, one C++ call"}
    assert all("replaced by nothing" in line["note"] for line in host)
    assert not [line for line in lines if "error" in line]


@pytest.mark.slow
def test_an_encoder_that_the_fused_kernels_do_not_compute_is_told(encoder, tmp_path):
    pytest.importorskip("triton", reason=skips.GPU)
    done = run_parts(encoder, tmp_path, "encoder", IPR_POOLING="mean")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "hidden_size: expected a multiple of 64" in (tmp_path / "gpu.jsonl").read_text()


def test_text_to_decision_is_measured_and_read_back_as_a_table(encoder, tmp_path):
    pytest.importorskip("triton", reason=skips.GPU)
    out = tmp_path / "gpu.jsonl"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    for arguments in (
        ["floor", "--device", "cpu", "--quick", "--out", out],
        ["last", "--device", "cpu", "--quick", "--out", out],
        ["text", encoder, "--pooling", "mean", "--device", "cpu", "--quick", "--minutes", "5", "--out", out],
        ["table", "--out", out],
    ):
        done = subprocess.run(
            [*command, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert "encoder and decide in one graph" in done.stdout
    assert {"floor", "last node", "load", "stages", "text to decision"} <= {
        json.loads(line)["op"] for line in out.read_text().splitlines()
    }
