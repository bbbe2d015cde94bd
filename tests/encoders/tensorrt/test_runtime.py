"""The encoder's own part of the run time, on a stand-in for TensorRT and the driver (tensorrt_stand_in.py): buckets, padding,
staging, one wait, the gate, and what it says when a GPU is missing, full, lost or foreign."""

from __future__ import annotations

import ctypes
import gc
import threading

import numpy as np
import pytest

from tests.support import skips

pytest.importorskip("onnx", reason=skips.TENSORRT)
ort = pytest.importorskip("onnxruntime", reason=skips.TENSORRT)

import ipr_engine.encoders.tensorrt.encoder as tier  # noqa: E402
from ipr_engine.cuda import driver as cuda  # noqa: E402
from ipr_engine.encoders.tensorrt import TensorRtEncoder  # noqa: E402
from ipr_engine.encoders.tensorrt.api import make_api  # noqa: E402
from ipr_engine.encoders.tensorrt.runtime import SLOTS  # noqa: E402
from ipr_engine.errors import (  # noqa: E402
    BackendUnavailableError,
    EngineMismatchError,
    InvalidInputError,
    OutOfDeviceMemoryError,
)
from tests.support.onnx_graphs import SMALL, make_export  # noqa: E402
from tests.support.tensorrt_stand_in import SCRATCH, Driver, make_module  # noqa: E402

PROMPTS = ["what is the story", "", "x", "Write Python code, and prove it.", "why to explain in " * 11, "naïve 東京 q9"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return Driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("export"), np.random.default_rng(2))


@pytest.fixture
def module(driver, monkeypatch):
    """The stand-in in place of TensorRT and of libcuda.so.1; its levers are back in place afterwards."""
    driver.reset()
    made = make_module(driver)
    monkeypatch.setattr(
        tier, "load_api", lambda flavour: make_api("tensorrt_rtx" if flavour == "tensorrt_rtx" else "tensorrt", made)
    )
    monkeypatch.setattr(cuda, "LIBRARY", driver.path)
    return made


@pytest.fixture
def load(module, export, tmp_path):
    made = []

    def load(**arguments):
        made.append(
            TensorRtEncoder.from_export(export.folder, cache=tmp_path / "cache", **{"batches": (1, 4), **arguments})
        )
        return made[-1]

    yield load
    for encoder in made:
        encoder.close()


def plain(export, encoder, prompts):
    """By ONNX Runtime from the float32 graph, each prompt alone and without padding."""
    session = ort.InferenceSession(export.files["onnx"], providers=["CPUExecutionProvider"])
    x = np.zeros((len(prompts), SMALL["hidden"]), dtype=np.float32)
    for row, ids in enumerate(encoder.ids(prompts)):
        if prompts[row]:
            x[row] = session.run(
                None, {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}
            )[0]
    return x


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_embeddings_are_those_of_the_model_in_order(load, export, precision):
    encoder = load(precision=precision)
    want = plain(export, encoder, PROMPTS)
    got = encoder.encode(PROMPTS)
    bound = {"float16": 1e-2, "float32": 1e-5}[precision]
    assert (np.linalg.norm(got.x - want, axis=1) <= bound).all()
    assert not got.x[1].any()
    assert got.truncated.tolist() == [False, False, False, False, True, False]
    assert (encoder.dim, encoder.identity, encoder.native) == (32, export.spec.identity(40), None)
    assert encoder.cosine >= 0.9999


def test_every_row_count_is_answered_and_the_host_waits_once_per_slots_passes(load, export, driver, module):
    encoder = load()
    prompts = [f"{'why ' * (i % 30)}x" for i in range(4 * SLOTS + 3)]
    want = plain(export, encoder, prompts)
    for rows in (1, 3, 4, 5, len(prompts)):
        before, module.executed[:] = driver.syncs, []
        x = encoder.encode(prompts[:rows]).x
        assert (np.linalg.norm(x - want[:rows], axis=1) <= 1e-2).all()
        assert driver.syncs - before == -(-len(module.executed) // SLOTS)
    assert len(module.executed) > SLOTS
    before = driver.syncs
    encoder.encode(["x"])
    assert driver.syncs - before == 1
    assert not len(encoder.encode([]).x)


def test_encoding_allocates_nothing_and_closing_gives_everything_back(load, driver):
    encoder = load()
    live = driver.live
    encoder.encode(PROMPTS)
    assert driver.live == live > 0
    encoder.close()
    encoder.close()
    assert driver.live == 0
    with pytest.raises(BackendUnavailableError, match="does no further work"):
        encoder.encode(["x"])


def test_an_encoder_that_is_dropped_gives_everything_back(module, export, tmp_path, driver):
    encoder = TensorRtEncoder.from_export(export.folder, cache=tmp_path, batches=(1,))
    assert driver.live > 0
    del encoder
    gc.collect()
    assert driver.live == 0


def test_the_engine_is_cached_and_a_stale_one_rebuilt(load, export, module, tmp_path):
    assert load().origin == "built"
    encoder = load()
    assert encoder.origin == "cached"
    assert "engine cached" in encoder.summary
    assert "Stand-in GPU" in encoder.summary
    encoder.engine.write_bytes(encoder.engine.read_bytes()[:-1])
    assert load().origin.startswith("rebuilt: ")
    module.__version__ = "11.5.0.0"
    assert load().origin == "built"
    assert len(list((tmp_path / "cache").glob("*.engine"))) == 2


@pytest.mark.parametrize("refuse", ["", "set_timing_cache"])
def test_timings_are_kept_for_this_gpu_and_another_gpus_are_left_out(load, module, refuse, tmp_path):
    load()
    module.refuse = refuse
    load(precision="float32")
    assert module.timings_read == (b"" if refuse else b"timings")
    (timings,) = (tmp_path / "cache").glob("*.timings")
    assert "Stand-in-GPU" in timings.name
    assert "8-9" in timings.name


def test_a_portable_plan_keeps_its_kernels_and_reads_them_again(load, module, tmp_path):
    load(flavour="tensorrt_rtx")
    (kernels,) = (tmp_path / "cache").glob("*.kernels")
    assert kernels.read_bytes() == b"kernels"
    assert "Stand-in-GPU" in kernels.name
    assert module.kernels_read == []
    load(flavour="tensorrt_rtx")
    assert module.kernels_read == [b"kernels"]
    assert not list((tmp_path / "cache").glob("*.timings"))


def test_an_engine_whose_embeddings_are_off_is_refused(load, module, driver):
    load().close()
    module.noise = 0.01
    with pytest.raises(EngineMismatchError, match=r"bucket 1 x 16: expected a cosine of at least 0\.9999 .* got 0\.99"):
        load()
    module.noise = np.nan
    with pytest.raises(EngineMismatchError, match="got nan"):
        load()
    assert driver.live == 0


def test_an_engine_file_of_another_gpu_or_version_is_refused_with_both_sides(load, module, export, monkeypatch):
    path = load().engine
    loaded = TensorRtEncoder.from_engine(path, export.folder, batches=(1, 4))
    assert loaded.origin == "file"
    loaded.close()
    with pytest.raises(
        EngineMismatchError, match=r"buckets: the engine has \['1 x 16', '4 x 16'.*here it is \['1 x 16', '1 x 32'"
    ):
        TensorRtEncoder.from_engine(path, export.folder, batches=(1,))
    module.__version__ = "11.9.0.0"
    with pytest.raises(EngineMismatchError, match=r"'tensorrt 11\.4\.0\.1', here it is 'tensorrt 11\.9\.0\.0'"):
        TensorRtEncoder.from_engine(path, export.folder, batches=(1, 4))
    module.__version__ = "11.4.0.1"
    monkeypatch.setattr(cuda.Device, "__str__", lambda self: "NVIDIA L4, compute capability 8.9, driver 13.0")
    with pytest.raises(EngineMismatchError, match=r"gpu: the engine has 'Stand-in GPU, .*here it is 'NVIDIA L4"):
        TensorRtEncoder.from_engine(path, export.folder, batches=(1, 4))


def test_no_gpu_too_few_gpus_and_no_driver_are_said_so(load, driver, monkeypatch):
    driver.reset(gpus=0)
    with pytest.raises(BackendUnavailableError, match=r"cannot be used: cuInit: CUDA_ERROR_NO_DEVICE \(100\)"):
        load()
    driver.reset(gpus=2)
    with pytest.raises(BackendUnavailableError, match="'cuda:2' was asked for, and there are 2 GPUs"):
        load(device="cuda:2")
    for device in ("cpu", "cuda:", "cuda:x", "gpu"):
        with pytest.raises(InvalidInputError, match=r"device: expected 'cuda' or 'cuda:N'"):
            load(device=device)
    monkeypatch.setattr(cuda, "LIBRARY", "libno-such-driver.so.1")
    with pytest.raises(
        BackendUnavailableError, match=r"needs NVIDIA's driver, whose libno-such-driver\.so\.1 does not load"
    ):
        load()


def test_too_little_device_memory_names_the_bucket_and_leaves_nothing_behind(load, driver):
    driver.reset(memory=4 * 40 * SCRATCH - 1)
    with pytest.raises(OutOfDeviceMemoryError, match=r"bucket 4 x 40 \(scratch 1 MiB\): .*CUDA_ERROR_OUT_OF_MEMORY"):
        load()
    assert driver.live == 0
    driver.reset(memory=4 * 40 * SCRATCH + 100)  # the scratch fits, the inputs do not
    with pytest.raises(OutOfDeviceMemoryError, match="bucket 4 x 40: "):
        load()
    assert driver.live == 0


@pytest.mark.parametrize("call", ["cuStreamSynchronize", "cuMemcpyHtoDAsync_v2", "cuCtxSetCurrent"])
def test_after_a_lost_gpu_the_encoder_refuses_further_work(load, driver, call):
    encoder = load()
    driver.fail(call, 700)
    with pytest.raises(BackendUnavailableError, match=f"Stand-in GPU failed: {call}: CUDA_ERROR_ILLEGAL_ADDRESS"):
        encoder.encode(["x"])
    driver.fail("", 0)
    with pytest.raises(
        BackendUnavailableError, match=r"does no further work .*CUDA_ERROR_ILLEGAL_ADDRESS.* in a new process"
    ):
        encoder.encode(["x"])


def test_a_portable_plan_that_is_refused_would_be_the_same_built_here(load, module, driver):
    module.refuse = "deserialize_cuda_engine"
    with pytest.raises(
        EngineMismatchError, match=r"cannot load it: it cannot; to build again changes nothing.*tier='torch'"
    ):
        load(flavour="tensorrt_rtx")
    assert driver.live == 0


@pytest.mark.parametrize(
    ("refuse", "error", "message"),
    [
        (
            "deserialize_cuda_engine",
            EngineMismatchError,
            "Stand-in GPU.* cannot load it: it cannot; build it again here",
        ),
        (
            "build_serialized_network",
            BackendUnavailableError,
            "tensorrt 11.4.0.1 cannot build .*float16: it cannot",
        ),
        ("create_execution_context", BackendUnavailableError, "no execution context for bucket 1 x 16: it cannot"),
        ("set_tensor_address", BackendUnavailableError, "set_tensor_address of input_ids"),
        ("execute_async_v3", BackendUnavailableError, "execute_async_v3, bucket 1 x 16: it cannot"),
    ],
)
def test_what_tensorrt_refuses_is_passed_on_with_its_words(load, module, driver, refuse, error, message):
    module.refuse = refuse
    with pytest.raises(error, match=message):
        load()
    assert driver.live == 0


@pytest.mark.parametrize("refuse", ["deserialize_cuda_engine", "create_execution_context"])
def test_memory_that_tensorrt_itself_lacks_is_out_of_device_memory(load, module, driver, refuse):
    module.refuse, module.words = refuse, "Error Code 2: OutOfMemory (Requested size was 99 bytes.)"
    need = {"deserialize_cuda_engine": "loading the plan", "create_execution_context": "bucket 1 x 16"}[refuse]
    with pytest.raises(OutOfDeviceMemoryError, match=f"at plan time, {need}: Error Code 2"):
        load()
    assert driver.live == 0


def test_an_engine_with_int32_inputs_is_fed_int32(load, driver, export, monkeypatch):
    made = make_module(driver, integer="INT32")
    monkeypatch.setattr(tier, "load_api", lambda flavour: make_api("tensorrt", made))
    encoder = load()
    assert encoder.runtime.integer == np.int32
    assert (np.linalg.norm(encoder.encode(PROMPTS).x - plain(export, encoder, PROMPTS), axis=1) <= 1e-2).all()


def test_enqueue_runs_a_bucket_on_the_callers_memory_and_leaves_the_encoders_alone(load, driver, export):
    encoder = load()
    runtime, device = encoder.runtime, encoder.runtime.device
    index = [str(bucket) for bucket in runtime.buckets].index("4 x 32")
    own = encoder.ids(["what is the story", "x", "prove it", "y"])
    want = plain(export, encoder, ["what is the story", "x", "prove it", "y"])
    addresses = [device.allocate(4 * 32 * 8) for _ in range(2)] + [device.allocate(4 * 32 * 4)]
    ids, mask = (np.ctypeslib.as_array((ctypes.c_int64 * 128).from_address(at)).reshape(4, 32) for at in addresses[:2])
    ids[:], mask[:] = 0, 0
    for row, row_ids in enumerate(own):
        ids[row, : len(row_ids)], mask[row, : len(row_ids)] = row_ids, 1
    stream, before = device.create_stream(), driver.syncs
    runtime.enqueue(index, stream, input_ids=addresses[0], attention_mask=addresses[1], embedding=addresses[2])
    assert driver.syncs == before
    device.synchronize(stream)
    x = np.ctypeslib.as_array((ctypes.c_float * 128).from_address(addresses[2])).reshape(4, 32)
    assert (np.linalg.norm(x - want, axis=1) <= 1e-2).all()
    ids[:], mask[:] = 3, 1  # the encoder must not read the caller's memory afterwards
    assert (np.linalg.norm(encoder.encode(PROMPTS).x - plain(export, encoder, PROMPTS), axis=1) <= 1e-2).all()


def test_threads_share_an_encoder(load, export):
    encoder = load()
    want = encoder.encode(PROMPTS).x
    wrong = []

    def work():
        for _ in range(10):
            wrong.extend([1] * (not np.array_equal(encoder.encode(PROMPTS).x, want)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
