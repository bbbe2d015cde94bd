"""`EngineRuntime` runs an engine: it plans one execution context per bucket and all memory; then it copies, executes, copies back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.cuda.buckets import Bucket, Pass, plan_passes
from ipr_engine.cuda.driver import OUT_OF_MEMORY, CudaError, Device
from ipr_engine.encoders.tensorrt import bindings
from ipr_engine.encoders.tensorrt.api import ELSEWHERE, Api
from ipr_engine.encoders.tensorrt.engine_checks import INPUTS, OUTPUT, check_engine
from ipr_engine.encoders.tensorrt.engine_file import write_to_cache
from ipr_engine.errors import BackendUnavailableError, EngineMismatchError, OutOfDeviceMemoryError

SLOTS = 8  # passes that may be in flight before the host waits
_ALIGN = 256  # bytes, of every tensor: as cudaMalloc aligns


@dataclass(frozen=True)
class _Staging:
    """A `_Staging` is pinned memory of one pass in flight, in the shape of one bucket: ids and mask (batch, tokens), x (batch, dim)."""

    ids: NDArray[Any]
    mask: NDArray[Any]
    x: NDArray[np.float32]


class EngineRuntime:
    """An `EngineRuntime` runs one plan on one GPU for one caller at a time (a lock); `close` gives its memory back.

    The buckets' contexts share one block of scratch memory and one pair of input and output buffers: they run in one stream.

    Attributes:
        buckets: the shapes, in the plan's order of profiles. stream: the CUDA stream it runs on.
        device_bytes: the memory it holds on the GPU besides the plan itself.
        lock: held by the caller that runs the contexts.
    """

    def __init__(
        self, api: Api, device: Device, plan: bytes, *, buckets: Sequence[Bucket], dim: int, pad_id: int, where: str,
        kernels: Path | None = None,
    ) -> None:  # fmt: skip
        """Load the plan, allocate, and make every bucket's context.

        Args:
            plan: of `build_plan`. where: its name in messages.
            kernels: the runtime cache of a portable plan: read here if it fits, written by `save_kernels`.
        Raises:
            EngineMismatchError: TensorRT refuses the plan, or its inputs, output or profiles are others.
            OutOfDeviceMemoryError: names the bucket that needs most.
            BackendUnavailableError: TensorRT or the driver fails.
        """
        self.api, self.device, self.buckets = api, device, tuple(buckets)
        self._dim, self._pad_id, self._where = dim, pad_id, where
        self._kernels = kernels
        self._runtime_cache: bindings.IRuntimeCache | None = None
        self.lock, self._failed = threading.Lock(), ""
        self._runtime: bindings.Runtime | None = None
        self._engine: bindings.ICudaEngine | None = None
        self._contexts: list[bindings.IExecutionContext] = []
        self._staging: list[list[_Staging]] = []
        self._bound: list[tuple[int, int, int]] = []
        self._need = ""
        try:
            self._plan(plan)
        except CudaError as error:
            self.close()
            if error.code != OUT_OF_MEMORY:
                raise BackendUnavailableError(f"{where}: {device} fails at plan time: {error}") from error
            raise self._out_of_memory(str(error)) from error
        except BaseException:
            self.close()
            raise
        self.device_bytes = self._scratch_bytes + self._input_bytes + self._output_bytes

    def embed(self, ids: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return (rows, dim) embeddings of rows of 1 to max_tokens ids, longest first; the host waits once per SLOTS passes.

        Raises:
            BackendUnavailableError: the GPU or TensorRT failed, now or before: this runtime does no further work.
        """
        x = np.empty((len(ids), self._dim), dtype=np.float32)
        with self.lock:
            self._require_working()
            try:
                self.device.activate()
                flying: list[Pass] = []
                for step in plan_passes([len(row) for row in ids], self.buckets):
                    if len(flying) == SLOTS:
                        self._collect(flying, x)
                    self._start(step, len(flying), ids)
                    flying.append(step)
                self._collect(flying, x)
            except CudaError as error:
                raise self._fail(str(error)) from error
        return x

    def enqueue(self, bucket: int, stream: int, *, input_ids: int, attention_mask: int, embedding: int) -> None:
        """Run buckets[bucket] on a stream with device memory of the caller's; nothing is copied or waited for.

        For CUDA graphs: run it once, then capture it. Only one stream may be inside this runtime at a time, `embed`'s included:
        all contexts share their scratch memory.

        Args:
            stream: a CUstream or cudaStream_t of this device's primary context; not the default stream.
            input_ids, attention_mask: device addresses of (batch, tokens) of `integer`, exactly the bucket's shape.
            embedding: device address of (batch, dim) float32.
        """
        self._require_working()
        addresses = (input_ids, attention_mask, embedding)
        if self._bound[bucket] != addresses:
            self._bind(self._contexts[bucket], addresses)
            self._bound[bucket] = addresses
        if not self._contexts[bucket].execute_async_v3(stream):
            raise self._fail(f"execute_async_v3, bucket {self.buckets[bucket]}: {self.api.why()}")

    @property
    def integer(self) -> np.dtype[Any]:
        """The type of the engine's inputs, int64 or int32."""
        return self._integer

    def save_kernels(self) -> None:
        """Keep the kernels that a portable plan compiled at first use; nothing for another."""
        if self._runtime_cache is not None and self._kernels is not None:
            write_to_cache(self._kernels, bytes(self._runtime_cache.serialize()))

    def close(self) -> None:
        """Free everything, contexts before the memory they use; further calls raise BackendUnavailableError."""
        with self.lock:
            if self._failed != "closed":
                self._failed = "closed"
                self._contexts.clear()
                self._staging.clear()
                self._runtime_cache = self._engine = self._runtime = None
                self.device.close()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.close()

    def _plan(self, plan: bytes) -> None:
        """Do everything that may fail. `_need` names the step at hand, for the message of an error."""
        largest = max(self.buckets, key=lambda bucket: bucket.batch * bucket.tokens)
        self._need = f"bucket {largest}"
        self.device.activate()
        self.stream = self.device.create_stream()
        self._runtime = self.api.runtime()
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            reason = self.api.why()
            if _tells_out_of_memory(reason):
                self._need = "loading the plan"
                raise self._out_of_memory(reason)
            # A portable plan is the same wherever it is built.
            advice = f"to build again changes nothing. {ELSEWHERE}" if self.api.portable else "build it again here"
            raise EngineMismatchError(f"{self._where}: {self.api} on {self.device} cannot load it: {reason}; {advice}")
        self._engine = engine
        self._integer = check_engine(engine, self.buckets, self._dim, self._where)
        # One scratch for all contexts: they run one after another in one stream.
        sizes = [engine.get_device_memory_size_for_profile_v2(i) for i in range(len(self.buckets))]
        self._need = f"bucket {self.buckets[int(np.argmax(sizes))]} (scratch {max(sizes) / 2**20:.0f} MiB)"
        self._scratch_bytes = max(engine.device_memory_size_v2, *sizes)
        self._scratch = self.device.allocate(self._scratch_bytes)
        self._need = f"bucket {largest}"
        self._plan_buffers(largest)
        for i, bucket in enumerate(self.buckets):
            self._need = f"bucket {bucket}"
            self._contexts.append(self._make_context(engine, i, bucket))
        self.device.synchronize(self.stream)

    def _out_of_memory(self, reason: str) -> OutOfDeviceMemoryError:
        return OutOfDeviceMemoryError(
            f"{self._where}: out of device memory at plan time, {self._need}: {reason}; use fewer or smaller batches, "
            "or another GPU"
        )

    def _plan_buffers(self, largest: Bucket) -> None:
        """Allocate one pair of input and output buffers on the device, and pinned memory of SLOTS passes."""
        integers = largest.batch * largest.tokens * self._integer.itemsize
        batch = max(bucket.batch for bucket in self.buckets)
        self._input_bytes, self._output_bytes = 2 * _aligned(integers), _aligned(batch * self._dim * 4)
        self._inputs, self._output = (self.device.allocate(size) for size in (self._input_bytes, self._output_bytes))
        slot = self._input_bytes + self._output_bytes
        pinned = self.device.allocate_pinned(SLOTS * slot)
        self._staging = [
            [self._stage(pinned[i * slot : (i + 1) * slot], bucket) for bucket in self.buckets] for i in range(SLOTS)
        ]

    def _stage(self, memory: NDArray[np.uint8], bucket: Bucket) -> _Staging:
        """View a slot's memory as a bucket: ids, then the mask at the next multiple of 256 bytes, so that one copy takes both."""
        size, begin = bucket.batch * bucket.tokens * self._integer.itemsize, self._mask_offset(bucket)
        ids, mask = (memory[at : at + size].view(self._integer).reshape(bucket.shape) for at in (0, begin))
        x = memory[self._input_bytes :][: bucket.batch * self._dim * 4].view(np.float32)  # 4 bytes a float
        return _Staging(ids, mask, x.reshape(bucket.batch, self._dim))

    def _mask_offset(self, bucket: Bucket) -> int:
        return _aligned(bucket.batch * bucket.tokens * self._integer.itemsize)

    def _make_context(self, engine: bindings.ICudaEngine, index: int, bucket: Bucket) -> bindings.IExecutionContext:
        """Make a bucket's context, with its profile, shapes, scratch and addresses set once and for all."""
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            self.api.module.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if self.api.portable:
            if self._runtime_cache is None:
                self._runtime_cache = config.create_runtime_cache()
                if self._kernels is not None and self._kernels.exists():
                    # False: another GPU, driver or release wrote it; the kernels are compiled again and saved over it.
                    self._runtime_cache.deserialize(self._kernels.read_bytes())
            config.set_runtime_cache(self._runtime_cache)
        context = engine.create_execution_context(config)
        if context is None:
            reason = self.api.why()
            if _tells_out_of_memory(reason):
                raise self._out_of_memory(reason)
            raise BackendUnavailableError(f"{self._where}: no execution context for bucket {bucket}: {reason}")
        # In the stream, and awaited: shapes may be set once the profile is.
        done = context.set_optimization_profile_async(index, self.stream)
        self.device.synchronize(self.stream)
        context.set_device_memory(self._scratch, self._scratch_bytes)
        addresses = (self._inputs, self._inputs + self._mask_offset(bucket), self._output)
        done = done and all(context.set_input_shape(name, bucket.shape) for name in INPUTS)
        self._bind(context, addresses)
        self._bound.append(addresses)
        if not done or context.infer_shapes():
            raise EngineMismatchError(f"{self._where}: bucket {bucket} cannot be set up: {self.api.why()}")
        return context

    def _bind(self, context: bindings.IExecutionContext, addresses: tuple[int, int, int]) -> None:
        for name, address in zip((*INPUTS, OUTPUT), addresses, strict=True):
            if not context.set_tensor_address(name, address):
                raise self._fail(f"set_tensor_address of {name}: {self.api.why()}")

    def _start(self, step: Pass, slot: int, ids: Sequence[NDArray[np.int64]]) -> None:
        """Fill a slot, copy it in, run, copy the embeddings out; all in the stream's order."""
        bucket, staging = self.buckets[step.bucket], self._staging[slot][step.bucket]
        staging.ids.fill(self._pad_id)
        staging.mask.fill(0)
        for row, own in enumerate(ids[step.begin : step.end]):
            staging.ids[row, : len(own)] = own
            staging.mask[row, : len(own)] = 1
        staging.mask[step.end - step.begin :, 0] = 1  # a row without one token would be 0 / 0
        mask = self._inputs + self._mask_offset(bucket)
        used = mask - self._inputs + staging.mask.nbytes  # ids, the gap behind them, mask
        self.device.copy_in(self._inputs, staging.ids.ctypes.data, used, self.stream)
        self.enqueue(step.bucket, self.stream, input_ids=self._inputs, attention_mask=mask, embedding=self._output)
        self.device.copy_out(staging.x.ctypes.data, self._output, (step.end - step.begin) * self._dim * 4, self.stream)

    def _collect(self, flying: list[Pass], x: NDArray[np.float32]) -> None:
        """Wait for the passes in flight, and copy their embeddings out of the slots."""
        self.device.synchronize(self.stream)
        for slot, step in enumerate(flying):
            x[step.begin : step.end] = self._staging[slot][step.bucket].x[: step.end - step.begin]
        flying.clear()

    def _require_working(self) -> None:
        if self._failed:
            raise BackendUnavailableError(
                f"{self._where}: this encoder does no further work ({self._failed}); load it again, after a lost GPU in a new "
                "process"
            )

    def _fail(self, reason: str) -> BackendUnavailableError:
        """Remember the failure: after a CUDA error the context's results cannot be trusted."""
        self._failed = f"{self.device.name} failed: {reason}"
        return BackendUnavailableError(f"{self._where}: {self._failed}; this encoder does no further work")


def _tells_out_of_memory(reason: str) -> bool:
    """Return whether a reason of TensorRT's says that memory ran out."""
    # It logs "Error Code 2: OutOfMemory" of an allocation of its own, and CUDA's "out of memory" of others.
    return "outofmemory" in reason.replace(" ", "").lower()


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
