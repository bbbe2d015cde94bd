"""The builder of TensorRT-RTX, which needs no GPU: what is parsed, what is asked of it, what it refuses, and the engine cache."""

from __future__ import annotations

import dataclasses
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import skips

trt = pytest.importorskip("tensorrt_rtx_bindings", reason=skips.TENSORRT, exc_type=ImportError)
onnx = pytest.importorskip("onnx", reason=skips.TENSORRT)
pytest.importorskip("onnxruntime", reason=skips.TENSORRT)

from ipr_engine.cuda import driver as cuda  # noqa: E402
from ipr_engine.cuda.buckets import make_buckets  # noqa: E402
from ipr_engine.encoders.tensorrt import TensorRtEncoder, prepare_engine  # noqa: E402
from ipr_engine.encoders.tensorrt.api import load_api  # noqa: E402
from ipr_engine.encoders.tensorrt.engine_checks import check_network  # noqa: E402
from ipr_engine.encoders.tensorrt.engine_file import EngineKey, read_engine, write_engine  # noqa: E402
from ipr_engine.encoders.tensorrt.engine_order import build_plan, configure, parse_network  # noqa: E402
from ipr_engine.encoders.tensorrt.precision import convert_precision  # noqa: E402
from ipr_engine.errors import (  # noqa: E402
    BackendUnavailableError,
    BundleHashError,
    EngineMismatchError,
    InvalidInputError,
)
from tests.support.onnx_graphs import SMALL, bert, make_export, random_weights, rotary_rms  # noqa: E402
from tests.support.tensorrt_stand_in import Driver  # noqa: E402
from tests.support.wordpieces import minilm_json  # noqa: E402

BATCHES = (2,)


@pytest.fixture(scope="module")
def api():
    return load_api("tensorrt_rtx")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("export"), np.random.default_rng(1), max_tokens=24)


@pytest.fixture(scope="module")
def built(tmp_path_factory, export):
    """A cache with one engine; tests that change it take a copy."""
    return prepare_engine(
        export.folder, cache=tmp_path_factory.mktemp("cache"), batches=BATCHES, flavour="tensorrt_rtx"
    )


@pytest.fixture
def cached(tmp_path, built):
    path = tmp_path / built.name
    path.write_bytes(built.read_bytes())
    return path


def key_of(export, api, **changes):
    key = EngineKey(
        model=export.hashes["onnx"],
        tensorrt=str(api),
        gpu="any",
        precision="float16",
        buckets=tuple(map(str, make_buckets(export.max_tokens, BATCHES))),
        pad_id=0,
        max_tokens=export.max_tokens,
        tokenizer=export.spec.tokenizer_sha256,
        workspace_bytes=1 << 30,
    )
    return dataclasses.replace(key, **changes)


def parsed(api, tmp_path, precision, model):
    path = tmp_path / "model.onnx"
    onnx.save(convert_precision(model, precision), path)
    builder = api.builder()
    return builder, *parse_network(api, builder, path, path)


@pytest.mark.parametrize(("precision", "kind"), [("float16", "HALF"), ("bfloat16", "BF16"), ("float32", "FLOAT")])
def test_the_network_is_strongly_typed_with_the_types_of_the_converted_graph(api, tmp_path, rng, precision, kind):
    _, network, _parser = parsed(api, tmp_path, precision, bert(random_weights(rng), heads=SMALL["heads"]))
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    types = {}
    for layer in map(network.get_layer, range(network.num_layers)):
        types.setdefault(layer.type, set()).add(layer.get_output(0).dtype)
    assert types[trt.LayerType.MATRIX_MULTIPLY] == {getattr(trt.DataType, kind)}
    assert types[trt.LayerType.NORMALIZATION] == types[trt.LayerType.SOFTMAX] == {trt.DataType.FLOAT}
    check_network(network, SMALL["hidden"], tmp_path / "model.onnx")
    assert {network.get_input(i).dtype for i in range(2)} == {trt.DataType.INT64}


def test_every_bucket_has_a_profile_of_exactly_its_shape_and_float32_is_not_tf32(api):
    builder = api.builder()
    buckets = make_buckets(40, (1, 3))
    config = configure(api, builder, buckets, 123 << 20)
    assert [str(bucket) for bucket in buckets] == ["1 x 16", "3 x 16", "1 x 32", "3 x 32", "1 x 40", "3 x 40"]
    assert config.num_optimization_profiles == len(buckets)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 123 << 20
    assert not config.get_flag(trt.BuilderFlag.TF32)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_bert_builds_in_every_precision(api, tmp_path, rng, precision):
    path = tmp_path / "model.onnx"
    onnx.save(bert(random_weights(rng), heads=SMALL["heads"]), path)
    plan = build_plan(api, path, dim=SMALL["hidden"], buckets=make_buckets(20, (2,)), precision=precision)
    assert len(plan) > 1000


def test_rotary_positions_and_a_written_out_normalisation_build(api, tmp_path, rng):
    path = tmp_path / "model.onnx"
    onnx.save(rotary_rms(rng), path)
    assert build_plan(api, path, dim=16, buckets=make_buckets(20, (2,)), precision="float16")


def test_the_real_minilm_builds_in_float16(api, tmp_path):
    tokenizer = minilm_json()
    if tokenizer is None:
        pytest.skip(skips.MINILM)
    from safetensors.numpy import load_file

    path = tmp_path / "model.onnx"
    weights = {
        name.removeprefix("bert."): array for name, array in load_file(tokenizer.parent / "model.safetensors").items()
    }
    weights = {name: array for name, array in weights.items() if array.dtype == np.float32}
    onnx.save(bert(weights, heads=12), path)
    plan = build_plan(api, path, dim=384, buckets=make_buckets(64, (8,))[-1:], precision="float16")
    size = path.stat().st_size
    assert 0.45 * size < len(plan) < 0.8 * size  # its weights in two bytes each, and little else


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"result": "x"}, "expected inputs input_ids, attention_mask and output embedding, got .*and x"),
        ({"dim": 31}, r"cannot parse it|embedding: expected \(batch, 31\)"),
    ],
)
def test_a_graph_that_is_not_the_encoder_of_its_manifest_is_refused(api, tmp_path, rng, change, message):
    path = tmp_path / "model.onnx"
    onnx.save(bert(random_weights(rng), heads=2, **{k: v for k, v in change.items() if k == "result"}), path)
    with pytest.raises(InvalidInputError, match=message):
        build_plan(api, path, dim=change.get("dim", 32), buckets=make_buckets(16, (1,)), precision="float32")


def test_a_file_that_is_no_graph_is_refused(api, tmp_path):
    path = tmp_path / "model.onnx"
    for content in (b"", b"no graph at all"):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"model\.onnx"):
            build_plan(api, path, dim=32, buckets=make_buckets(16, (1,)), precision="float32")
    with pytest.raises(InvalidInputError, match="no ONNX graph"):
        build_plan(api, tmp_path / "none.onnx", dim=32, buckets=make_buckets(16, (1,)), precision="float32")


def test_an_onnx_file_that_does_not_match_its_manifest_is_refused(tmp_path, rng):
    export = make_export(tmp_path / "export", rng)
    path = export.folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleHashError, match=r"files\.onnx"):
        prepare_engine(export.folder, cache=tmp_path / "cache", flavour="tensorrt_rtx")


def test_an_engine_is_found_again_with_its_sample_and_reference(api, export, built):
    engine = read_engine(built, key_of(export, api))
    before = built.stat().st_mtime_ns
    again = prepare_engine(export.folder, cache=built.parent, batches=BATCHES, flavour="tensorrt_rtx")
    assert (again, again.stat().st_mtime_ns) == (built, before)
    assert engine.reference.shape == (len(engine.sample), SMALL["hidden"])
    np.testing.assert_allclose(np.linalg.norm(engine.reference, axis=1), 1, rtol=1e-6)
    lengths = [len(row) for row in engine.sample]
    assert {16, 24} <= set(lengths)
    assert min(lengths) < 16


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "stale", "empty"])
def test_a_damaged_foreign_or_stale_entry_is_rebuilt_and_said_so(api, export, cached, damage, caplog):
    data = bytearray(cached.read_bytes())
    if damage == "truncated":
        cached.write_bytes(data[:-100])
    elif damage == "empty":
        cached.write_bytes(b"")
    elif damage == "flipped":
        data[-5000] ^= 1
        cached.write_bytes(data)
    else:
        key = key_of(export, api)
        engine = read_engine(cached, key)
        other = {"foreign": {"model": "0" * 64}, "stale": {"tensorrt": "tensorrt_rtx 1.6.0.1"}}[damage]
        write_engine(cached, dataclasses.replace(engine, key={**engine.key, **other}))
    with caplog.at_level(logging.WARNING, logger="ipr_engine"):
        path = prepare_engine(export.folder, cache=cached.parent, batches=BATCHES, flavour="tensorrt_rtx")
    assert path == cached
    assert read_engine(path, key_of(export, api)).plan
    assert cached.name in caplog.text
    assert [file.name for file in cached.parent.iterdir()] == [cached.name]  # nothing half-written stays


@pytest.mark.parametrize(
    ("change", "here"),
    [
        ({"gpu": "NVIDIA L4, compute capability 8.9, driver 13.0"}, "'any'"),
        ({"tensorrt": "tensorrt 11.4.0.106"}, "tensorrt_rtx 1"),
        ({"precision": "bfloat16"}, "float16"),
        ({"buckets": ("1 x 16",)}, "2 x 24"),
        ({"model": "f" * 64}, ""),
    ],
)
def test_an_engine_of_another_gpu_version_or_shape_is_refused_with_both_sides(api, export, built, change, here):
    (name, value), *_ = change.items()
    wanted = key_of(export, api, **change)
    with pytest.raises(EngineMismatchError) as caught:
        read_engine(built, wanted)
    shown = str(list(value)) if isinstance(value, tuple) else value
    assert f"{name}: the engine has" in str(caught.value)
    assert shown in str(caught.value)
    assert here in str(caught.value)


def test_every_part_of_the_key_names_another_file(export, api):
    key = key_of(export, api)
    changes = {field.name: ("x",) if field.name == "buckets" else "x" for field in dataclasses.fields(key)}
    names = {dataclasses.replace(key, **{name: value}).file_name for name, value in changes.items()}
    assert len(names | {key.file_name}) == len(changes) + 1


def test_no_file_and_no_engine_file_are_engine_errors(api, export, tmp_path):
    key = key_of(export, api)
    with pytest.raises(EngineMismatchError, match="no such engine"):
        read_engine(tmp_path / "none.engine", key)
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "x.engine")
    with pytest.raises(EngineMismatchError, match="another safetensors file"):
        read_engine(tmp_path / "x.engine", key)


def test_without_a_driver_the_encoder_says_what_is_missing(export, built):
    if _has_driver():
        pytest.skip(f"{skips.HARDWARE} nothing: there is an NVIDIA driver")
    for make in (TensorRtEncoder.from_export, lambda folder, **kw: TensorRtEncoder.from_engine(built, folder, **kw)):
        with pytest.raises(BackendUnavailableError, match=r"NVIDIA's driver.*libcuda\.so\.1"):
            make(export.folder, flavour="tensorrt_rtx")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A stand-in for libcuda.so.1; TensorRT-RTX itself is the real one."""
    made = Driver(tmp_path)
    monkeypatch.setattr(cuda, "LIBRARY", made.path)
    return made


@pytest.mark.parametrize("way", ["from_export", "from_engine"])
def test_a_gpu_that_tensorrt_rtx_does_not_name_is_told_which_tier_to_take(way, driver, export, built, tmp_path):
    """An H100, say: nothing is built, and nothing stays open."""
    driver.capability(9, 0)
    ways = {
        "from_export": lambda: TensorRtEncoder.from_export(export.folder, cache=tmp_path / "c", flavour="tensorrt_rtx"),
        "from_engine": lambda: TensorRtEncoder.from_engine(built, export.folder, flavour="tensorrt_rtx"),
    }
    told = r"^device: tensorrt_rtx 1\..* names 7\.5, 8\.0, 8\.6, 8\.9, 12\.0.* compute capability 9\.0.*changes nothing.*tier='torch'"
    with pytest.raises(BackendUnavailableError, match=told):
        ways[way]()
    assert not (tmp_path / "c").exists()
    assert driver.live == 0


# the export is a graph alone: behind tensorrt onnx serves it
@pytest.mark.parametrize(("capability", "taken"), [((9, 0), "onnx"), ((8, 9), "tensorrt")])
def test_auto_passes_over_tensorrt_on_a_gpu_that_it_does_not_name_and_says_so(
    driver, export, caplog, monkeypatch, capability, taken
):
    from ipr_engine.encoders import registry
    from ipr_engine.encoders.load_options import LoadOptions

    driver.capability(*capability)
    opened = []
    tier = SimpleNamespace(open_export=lambda *_, **__: "an encoder")
    monkeypatch.setattr(registry, "_tier_class", lambda name, device: opened.append(name) or tier)
    assert registry.open_export(export.folder, LoadOptions(device="cuda")) == "an encoder"
    assert opened == [taken]
    assert ("passes over tensorrt: device: tensorrt_rtx" in caplog.text) == (taken == "onnx")
    assert driver.live == 0


def test_the_gpus_that_tensorrt_rtx_builds_for_are_read_from_it(api):
    named = {f"SM{one.replace('.', '')}" for one in api.compute_capabilities}
    assert named | {"NONE", "CURRENT"} == set(trt.ComputeCapability.__members__)


def test_without_a_driver_tensorrt_itself_refuses_the_plan_it_built(api, export, built):
    if _has_driver():
        pytest.skip(f"{skips.HARDWARE} nothing: there is an NVIDIA driver")
    assert api.runtime().deserialize_cuda_engine(read_engine(built, key_of(export, api)).plan) is None
    assert "CUDA" in api.why()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int8"}, "precision: expected one of float16, bfloat16, float32, got 'int8'"),
        ({"batches": ()}, r"batches: expected ints >= 1, got \[\]"),
        ({"batches": (0, 1)}, "batches: expected ints >= 1"),
        ({"max_tokens": 0}, "max_tokens: expected an int >= 1, got 0"),
        ({"max_tokens": 65}, "max_tokens: expected at most the model's 64 positions, got 65"),
        ({"flavour": "onnx"}, "flavour: expected auto, tensorrt or tensorrt_rtx, got 'onnx'"),
        ({"workspace_bytes": 0}, "workspace_bytes"),
    ],
)
def test_bad_arguments_are_named(export, tmp_path, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        prepare_engine(export.folder, cache=tmp_path, **{"flavour": "tensorrt_rtx", **arguments})


def test_a_cache_that_cannot_be_written_is_said_so(export, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InvalidInputError, match=r"cache: .*file cannot be written"):
        prepare_engine(export.folder, cache=tmp_path / "file", batches=(1,), max_tokens=16, flavour="tensorrt_rtx")


def test_the_key_in_the_file_is_plain_json(built):
    from safetensors import safe_open

    with safe_open(built, framework="numpy") as file:
        key = json.loads(file.metadata()["key"])
    assert key["gpu"] == "any"
    assert key["tensorrt"].startswith("tensorrt_rtx ")


def _has_driver():
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
