"""What every tier that runs a transformer on a CPU promises; what is one tier's own stands in test_<tier>.py."""

from __future__ import annotations

import doctest
import subprocess
import sys
import threading

import numpy as np
import pytest

from ipr_engine.encoders.export import export_encoder
from ipr_engine.encoders.openvino import MIXED
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.errors import BackendUnavailableError, BundleFormatError, BundleHashError, InvalidInputError
from tests.support import skips
from tests.support.cpu_tiers import (
    MAX_TOKENS,
    PROMPTS,
    REAL_PROMPTS,
    copy_export,
    cosines,
    mixed_prompts,
    needs_bfloat16,
    needs_openvino,
    open_tier,
    tier_class,
    tier_module,
    with_files,
)
from tests.support.transformer_folders import make_bare_transformer
from tests.support.wordpieces import minilm_json

for package in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=skips.EXPORT)

GATE = 0.99999  # least cosine to the torch tier in float32
ROW_BOUND = 1e-5  # of ||x||, as every tier states it
FAMILIES = [("roberta", "cls"), ("modernbert", "mean"), ("qwen3", "last")]
OPENVINO = pytest.param("openvino", marks=needs_openvino)
on_exports = pytest.mark.parametrize("tier", ["onnx", OPENVINO])
on_all = pytest.mark.parametrize("tier", ["torch", "onnx", OPENVINO])


@pytest.fixture(scope="module")
def sources(model_folder, exported):
    return {"torch": model_folder, "onnx": exported, "openvino": exported}


@pytest.fixture(scope="module")
def torch_tier(model_folder):
    return open_tier("torch", model_folder)


@pytest.fixture(scope="module", params=FAMILIES, ids=[family for family, _ in FAMILIES])
def family(request, tmp_path_factory):
    """An export of another architecture, and the torch tier's embeddings of PROMPTS by its model."""
    name, pooling = request.param
    root = tmp_path_factory.mktemp(name)
    model = make_bare_transformer(root / "model", name)
    exported = export_encoder(model, root / "out", pooling=pooling, max_tokens=MAX_TOKENS)
    return exported.folder, open_tier("torch", model, pooling=pooling).encode(PROMPTS).x


@pytest.fixture(scope="module")
def minilm_x(minilm):
    """The torch tier's embeddings of REAL_PROMPTS by MiniLM."""
    return TorchEncoder.from_folder(minilm_json().parent, max_tokens=128).encode(REAL_PROMPTS).x


@pytest.fixture(
    params=[
        ("torch", {}),
        ("onnx", {}),
        pytest.param(("openvino", {}), marks=needs_openvino),
        pytest.param(("openvino", {"threads": 2}), marks=needs_openvino),
        pytest.param(("openvino", {"dtype": MIXED}), marks=needs_bfloat16),
        pytest.param(("openvino", {"dtype": MIXED, "threads": 2}), marks=needs_bfloat16),
    ],
    ids=lambda param: "-".join(map(str, (param[0], *param[1].values()))),
)
def encoder(request, sources):
    """Every tier in every arithmetic that is bounded by ROW_BOUND."""
    tier, how = request.param
    return open_tier(tier, sources[tier], **how)


@on_exports
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_embeddings_bills_and_identity_are_those_of_the_torch_tier(sources, torch_tier, rng, tier, batch):
    encoder = open_tier(tier, sources[tier], batch=batch)
    prompts = PROMPTS + mixed_prompts(rng)
    got, want = encoder.encode(prompts), torch_tier.encode(prompts)
    embedded = want.billed_tokens > 0
    assert cosines(got.x[embedded], want.x[embedded]).min() >= GATE
    assert not got.x[~embedded].any()
    np.testing.assert_array_equal(got.billed_tokens, want.billed_tokens)
    np.testing.assert_array_equal(got.truncated, want.truncated)
    assert (encoder.identity, encoder.dim, encoder.native) == (torch_tier.identity, 32, None)
    assert want.truncated.any()


@on_exports
def test_other_families_run_too(family, tier):
    source, want = family
    assert cosines(open_tier(tier, source).encode(PROMPTS).x, want).min() >= GATE


@on_exports
def test_the_real_minilm_runs_as_the_torch_tier_does(minilm, minilm_x, tier):
    encoder = open_tier(tier, minilm)
    assert cosines(encoder.encode(REAL_PROMPTS).x, minilm_x).min() >= GATE
    assert encoder.tokenizer.kind == "wordpiece"


def test_rows_come_back_in_order_and_within_the_stated_bound_of_those_alone(encoder, rng):
    prompts = [prompt for prompt in mixed_prompts(rng, 60) if prompt]
    together = encoder.encode(prompts)
    alone = np.concatenate([encoder.encode([prompt]).x for prompt in prompts])
    assert (np.linalg.norm(together.x - alone, axis=1) <= ROW_BOUND * np.linalg.norm(alone, axis=1)).all()
    assert together.billed_tokens.tolist() == [len(prompt.split()) for prompt in prompts]
    assert (together.x.dtype, together.x.flags.c_contiguous) == (np.float32, True)


def test_threads_share_one_encoder(encoder, rng):
    prompts = [prompt for prompt in mixed_prompts(rng, 20) if prompt]
    want = encoder.encode(prompts).x
    results = {}

    def work(name):
        results[name] = [encoder.encode(prompts).x for _ in range(5)]

    workers = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seen in results.values():
        for x in seen:
            np.testing.assert_array_equal(x, want)
    assert len(results) == 4


@on_all
def test_no_prompt_and_an_empty_prompt_have_their_rows(sources, tier):
    encoder = open_tier(tier, sources[tier])
    assert encoder.encode([]).x.shape == (0, 32)
    encoded = encoder.encode(["", "why", " \n"])
    assert encoded.billed_tokens.tolist() == [0, 1, 0]
    assert not encoded.x[[0, 2]].any()
    np.testing.assert_array_equal(encoded.x[1:2], encoder.encode(["why"]).x)


@on_all
def test_loading_prints_nothing(sources, capfd, tier):
    open_tier(tier, sources[tier])
    assert capfd.readouterr() == ("", "")


@on_exports
def test_it_needs_no_package_of_another_tier_starts_no_process_and_writes_nothing_at_home(exported, tmp_path, tier):
    """As it comes, `import openvino` tells Google Analytics, and writes an id into the user's home."""
    made = tier_class(tier)
    others = {"torch", "transformers", "onnx", "onnxruntime", "openvino"} - {"onnxruntime" if tier == "onnx" else tier}
    code = (
        "import multiprocessing, sys\n"
        f"for name in {sorted(others)}: sys.modules[name] = None\n"
        "started = []\n"
        "multiprocessing.Process.start = started.append\n"
        f"from {made.__module__} import {made.__name__} as Encoder\n"
        f"print(Encoder.from_export({str(exported)!r}).encode(['why']).x.shape)\n"
        "print(started, [name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["(1, 32)", "[] []"], done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tier", "file"),
    [
        *(("onnx", file) for file in ("model.cpu.onnx", "model.onnx", "tokenizer.json")),
        *(pytest.param("openvino", file, marks=needs_openvino) for file in ("model.onnx", "tokenizer.json")),
    ],
)
def test_a_file_that_does_not_match_its_manifest_is_refused(exported, tmp_path, tier, file):
    damaged = copy_export(exported, tmp_path) / file
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleHashError, match=file.replace(".", r"\.")):
        open_tier(tier, tmp_path)


@on_exports
def test_a_graph_that_is_none_is_named(exported, tmp_path, tier):
    (tmp_path / "odd.onnx").write_bytes(b"no graph")
    library = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[tier]
    with pytest.raises(BundleFormatError, match=rf"odd\.onnx: {library} cannot open it"):
        open_tier(tier, with_files(exported, tmp_path, onnx="odd.onnx").folder)


@on_exports
def test_a_graph_of_another_signature_is_named(exported, tmp_path, tier):
    import onnx

    graph = onnx.load(exported / "model.onnx")
    graph.graph.output[0].name = "other"
    graph.graph.node[-1].output[0] = "other"
    (tmp_path / "odd.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(BundleFormatError, match=r"odd\.onnx: expected input_ids .* embedding .* got .*other"):
        open_tier(tier, with_files(exported, tmp_path, onnx="odd.onnx").folder)


@on_exports
def test_memory_that_lacks_at_plan_time_names_the_largest_run(exported, monkeypatch, tier):
    def exhausted(self, rows, tokens):
        raise MemoryError("Failed to allocate memory")

    monkeypatch.setattr(tier_class(tier), "run_planned", exhausted)
    with pytest.raises(
        BackendUnavailableError, match=rf"{tier}: no run of 10 rows x 48 tokens.*, the largest.*planned: .*to allocate"
    ):
        open_tier(tier, exported)


@on_exports
def test_a_run_that_fails_later_is_told_by_its_first_line(exported, monkeypatch, tier):
    encoder = open_tier(tier, exported)

    def gone(rows, tokens):
        raise RuntimeError("device unavailable\nmore")

    monkeypatch.setattr(encoder, "run_planned", gone)
    with pytest.raises(BackendUnavailableError, match=rf"{tier}: .* 1 rows x 3 tokens.* failed: .*unavailable$"):
        encoder.encode(["why"])


@on_all
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"max_tokens": 2}, "max_tokens: expected more than the 2 special tokens, got 2"),
        ({"max_tokens": 601}, "max_tokens: expected at most the model's 600 positions, got 601"),
        ({"max_tokens": 8.0}, r"max_tokens: expected an int >= 1, got 8\.0"),
        ({"batch": 0}, "batch: expected an int >= 1, got 0"),
    ],
)
def test_bad_arguments_are_named(sources, tier, how, message):
    with pytest.raises(InvalidInputError, match=message):
        open_tier(tier, sources[tier], **how)


@on_exports
@pytest.mark.parametrize("threads", [0, True])
def test_a_bad_number_of_threads_is_named(exported, tier, threads):
    with pytest.raises(InvalidInputError, match=f"threads: expected an int from 1 to 1024, or None, got {threads}"):
        open_tier(tier, exported, threads=threads)


@pytest.mark.parametrize(
    ("tier", "package", "extra"),
    [
        ("torch", "transformers", "train"),
        ("onnx", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(sources, monkeypatch, tier, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailableError, match=rf"ipr_engine\[{extra}\]"):
        open_tier(tier, sources[tier])


@on_all
def test_the_example_of_the_docstring_runs(sources, tier):
    results = doctest.testmod(tier_module(tier), extraglobs={"folder": sources[tier]})
    assert (results.attempted, results.failed) == (2, 0)
