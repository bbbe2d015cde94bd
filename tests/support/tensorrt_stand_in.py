"""A stand-in plays TensorRT and the CUDA driver on a machine without a GPU.

The plan it "builds" is the converted graph, which ONNX Runtime executes on the addresses it was given, in the stand-in driver's
memory (stand_in_cuda.c), when the stream gets there. It is strict: a context runs only with its profile, exactly its profile's
shapes, scratch memory and all addresses set. It cannot show that TensorRT does the same; the calls' names and arguments are those
of the real bindings (tests/encoders/tensorrt/test_bindings.py).
"""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SCRATCH = 4096  # bytes a token of a bucket


class Driver:
    """A `Driver` is the compiled stand-in, and its levers."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "libstandin.so")
        source = Path(__file__).with_name("stand_in_cuda.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", self.path, source], check=True)
        self.library = ctypes.CDLL(self.path)
        self.work = ctypes.CFUNCTYPE(None)
        self.library.stand_in_enqueue.argtypes = (self.work, ctypes.c_void_p)
        self.library.stand_in_reset.argtypes = (ctypes.c_int, ctypes.c_size_t)
        self.kept: list[object] = []

    def reset(self, gpus: int = 1, memory: int = 1 << 30) -> None:
        self.library.stand_in_reset(gpus, memory)
        self.kept.clear()

    def fail(self, call: str, code: int) -> None:
        self.library.stand_in_fail(call.encode(), code)

    def capability(self, major: int, minor: int) -> None:
        """Give the GPU a compute capability; `reset` gives it 8.9 again."""
        self.library.stand_in_capability(major, minor)

    @property
    def syncs(self) -> int:
        return self.library.stand_in_syncs()

    @property
    def live(self) -> int:
        return self.library.stand_in_live()


class ILogger:
    ERROR, INTERNAL_ERROR = "error", "internal"


class _DataType:
    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return f"DataType.{self._name}"


def make_module(driver: Driver, *, version: str = "11.4.0.1", integer: str = "INT64") -> SimpleNamespace:
    """Make a module like `tensorrt`. Levers: `noise` is added to embeddings, `refuse` names a call that answers False
    or None and logs `words`.
    """
    import onnx
    import onnxruntime as ort

    module = SimpleNamespace(__version__=version, ILogger=ILogger, noise=0.0, refuse="", words="it cannot", executed=[])
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    module.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    module.BuilderFlag = SimpleNamespace(TF32="tf32")
    module.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    kinds = {1: _DataType("FLOAT"), 7: _DataType("INT64")}

    class Network:
        def __init__(self, flags):
            assert flags == 1 << 1

        def tensors(self, which):
            return [
                SimpleNamespace(
                    name=info.name,
                    dtype=kinds[info.type.tensor_type.elem_type],
                    shape=tuple(dim.dim_value or -1 for dim in info.type.tensor_type.shape.dim),
                )
                for info in getattr(self.model.graph, which)
            ]

        num_inputs = property(lambda self: len(self.tensors("input")))
        num_outputs = property(lambda self: len(self.tensors("output")))

        def get_input(self, index):
            return self.tensors("input")[index]

        def get_output(self, index):
            return self.tensors("output")[index]

    class OnnxParser:
        num_errors = 0

        def __init__(self, network, logger):
            self.network = network

        def parse_from_file(self, model):
            self.network.model = onnx.load(model)
            return True

    class Config:
        def __init__(self):
            self.profiles, self.cleared, self.cache = [], [], None

        def set_memory_pool_limit(self, pool, pool_size):
            assert pool == "workspace"

        def clear_flag(self, flag):
            self.cleared.append(flag)

        def add_optimization_profile(self, profile):
            self.profiles.append(profile.shapes)
            return len(self.profiles) - 1

        def create_timing_cache(self, serialized_timing_cache):
            module.timings_read = serialized_timing_cache
            return SimpleNamespace(serialize=lambda: b"timings")

        def set_timing_cache(self, cache, ignore_mismatch):
            self.cache = cache
            return module.refuse != "set_timing_cache" or module.timings_read == b""

    class Builder:
        def __init__(self, logger):
            self.logger = logger

        def create_network(self, flags):
            return Network(flags)

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            shapes = {}
            return SimpleNamespace(
                shapes=shapes, set_shape=lambda name, low, best, high: shapes.__setitem__(name, [low, best, high])
            )

        def build_serialized_network(self, network, config):
            assert config.cleared == ["tf32"]
            if module.refuse == "build_serialized_network":
                self.logger.log(ILogger.ERROR, module.words)
                return None
            head = json.dumps(config.profiles).encode() + b"\n"
            return head + network.model.SerializeToString()

    class Context:
        def __init__(self, engine):
            self.engine, self.profile, self.scratch = engine, None, 0
            self.shapes, self.addresses = {}, {}

        def set_optimization_profile_async(self, profile_index, stream_handle):
            assert stream_handle
            self.profile = self.engine.profiles[profile_index]
            return True

        def set_input_shape(self, name, shape):
            low, _, high = self.profile[name]
            self.shapes[name] = shape
            return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

        def set_tensor_address(self, name, memory):
            assert memory % 256 == 0
            self.addresses[name] = memory
            return module.refuse != "set_tensor_address"

        def set_device_memory(self, memory, size):
            assert memory
            self.scratch = size

        def infer_shapes(self):
            return [name for name in ("input_ids", "attention_mask") if name not in self.shapes]

        def execute_async_v3(self, stream_handle):
            assert self.scratch >= self.engine.device_memory_size_v2
            assert set(self.addresses) == {"input_ids", "attention_mask", "embedding"}
            module.executed.append(self.shapes["input_ids"])
            if module.refuse == "execute_async_v3":
                self.engine.logger.log(ILogger.ERROR, module.words)
                return False
            addresses, shape = dict(self.addresses), self.shapes["input_ids"]
            work = driver.work(lambda: self.engine.compute(addresses, shape))
            driver.kept.append(work)
            assert driver.library.stand_in_enqueue(work, stream_handle) == 0
            return True

    class Engine:
        def __init__(self, plan, logger):
            head, _, body = plan.partition(b"\n")
            self.logger = logger
            self.profiles = json.loads(head)
            self.session = ort.InferenceSession(body, providers=["CPUExecutionProvider"])
            self.dim = self.session.get_outputs()[0].shape[1]
            self.names = ["input_ids", "attention_mask", "embedding"]
            self.num_io_tensors, self.num_optimization_profiles = 3, len(self.profiles)
            self.device_memory_size_v2 = max(map(self.get_device_memory_size_for_profile_v2, range(len(self.profiles))))

        def get_device_memory_size_for_profile_v2(self, profile_index):
            return SCRATCH * int(np.prod(self.profiles[profile_index]["input_ids"][2]))

        def get_tensor_name(self, index):
            return self.names[index]

        def get_tensor_dtype(self, name):
            return _DataType("FLOAT" if name == "embedding" else integer)

        def get_tensor_shape(self, name):
            return (-1, self.dim if name == "embedding" else -1)

        def get_tensor_profile_shape(self, name, profile_index):
            return self.profiles[profile_index][name]

        def create_runtime_config(self):
            config = SimpleNamespace(strategy=None, cache=None)
            config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
            config.create_runtime_cache = lambda: SimpleNamespace(
                deserialize=lambda blob: module.kernels_read.append(blob) or False, serialize=lambda: b"kernels"
            )
            config.set_runtime_cache = lambda cache: setattr(config, "cache", cache) or True
            module.kernels_read = getattr(module, "kernels_read", [])
            return config

        def create_execution_context(self, runtime_config):
            assert runtime_config.strategy == "user"
            if module.refuse == "create_execution_context":
                self.logger.log(ILogger.ERROR, module.words)
                return None
            return Context(self)

        def compute(self, addresses, shape):
            dtype = np.int64 if integer == "INT64" else np.int32
            feed = {name: _view(addresses[name], shape, dtype).astype(np.int64) for name in self.names[:2]}
            x = self.session.run(None, feed)[0] + np.float32(module.noise)
            _view(addresses["embedding"], (shape[0], self.dim), np.float32)[:] = x

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, serialized_engine):
            if module.refuse == "deserialize_cuda_engine":
                self.logger.log(ILogger.ERROR, module.words)
                return None
            return Engine(serialized_engine, self.logger)

    module.Builder, module.OnnxParser, module.Runtime = Builder, OnnxParser, Runtime
    return module


def _view(address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)
