"""This file makes the few calls of CUDA that this package needs, by ctypes from the driver's own library (libcuda.so.1), without torch.

    Driver    the library and its errors, for `Device` and for kernels/cubin.py
    Device    one GPU's primary context, memory and streams, for the tensorrt tier

The device's primary context is used, so that TensorRT, PyTorch and this module see the same memory and streams.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.errors import BackendUnavailableError, InvalidInputError

OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
# What C++ replays a graph with (csrc/include/ipr/graph_replays.h).
GRAPH_CALLS = (
    "cuGraphLaunch",
    "cuStreamQuery",
    "cuCtxGetCurrent",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
)
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
LIBRARY = "libcuda.so.1"  # of the driver, not of the toolkit
# Types of the arguments of each call; handles and streams are void pointers, device addresses 64-bit integers.
_DEVICE_CALLS: Mapping[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (c_void_p,),
    "cuDeviceGetCount": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (c_void_p, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuGetErrorName": (c_int, c_void_p),
}


class CudaError(RuntimeError):
    """A `CudaError` tells that a call into the driver failed. code: its CUresult, OUT_OF_MEMORY say."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call}: {name} ({code})")
        self.code = code


class Driver:
    """A `Driver` is CUDA's driver library, loaded."""

    def __init__(self, library: Any = None, *, calls: Mapping[str, tuple[Any, ...]] = MappingProxyType({})) -> None:
        """Load the library, or take one already loaded.

        Args:
            calls: name -> types of the arguments, of calls that the library must have; other calls are typed by what they are given.
        Raises:
            OSError: the library cannot be loaded here.
            AttributeError: it lacks one of `calls`.
        """
        self._library = ctypes.CDLL(LIBRARY) if library is None else library
        for name, arguments in calls.items():
            getattr(self._library, name).argtypes = arguments

    def call(self, name: str, *arguments: Any) -> int:
        """Call one function, and return its CUresult: 0 for success."""
        code: int = getattr(self._library, name)(*arguments)
        return code

    def addresses(self, names: Iterable[str]) -> dict[str, int]:
        """Return the address of each of these functions of the library, which must have it."""
        return {name: ctypes.cast(getattr(self._library, name), c_void_p).value or 0 for name in names}

    def current_context(self) -> int:
        """Return the address of the calling thread's context, 0 where it has none."""
        context = c_void_p()
        self.call("cuCtxGetCurrent", byref(context))
        return context.value or 0

    def error_name(self, code: int) -> str:
        """Return the name of a CUresult, "CUDA_ERROR_OUT_OF_MEMORY" say."""
        text = c_char_p()
        self.call("cuGetErrorName", code, byref(text))
        return (text.value or b"unknown error").decode()

    def error_text(self, code: int) -> str:
        """Return the meaning of a CUresult, "out of memory" say."""
        text = c_char_p()
        self.call("cuGetErrorString", code, byref(text))
        return (text.value or b"unknown").decode()


class Device:
    """A `Device` is one GPU: its primary context, memory and streams.

    Attributes:
        name: "NVIDIA L4", say. compute_capability: "8.9". driver: the newest CUDA it speaks, "13.0".
    """

    def __init__(self, device: str = "cuda") -> None:
        """Open "cuda" (the first GPU) or "cuda:N".

        Raises:
            InvalidInputError: another device.
            BackendUnavailableError: no NVIDIA driver, no GPU, or not that many.
        """
        index = _index_of(device)
        try:
            self._driver = Driver(calls=_DEVICE_CALLS)
        except (OSError, AttributeError) as error:
            raise BackendUnavailableError(
                f"device: {device!r} needs NVIDIA's driver, whose {LIBRARY} does not load here: {error}; install the driver, or take "
                "device 'cpu'"
            ) from error
        count, handle, version, context = c_int(), c_int(), c_int(), c_void_p()
        try:
            self._call("cuInit", 0)
            self._call("cuDeviceGetCount", byref(count))
            if index >= count.value:
                raise BackendUnavailableError(
                    f"device: {device!r} was asked for, and there are {count.value} GPUs; they count from 'cuda:0'"
                )
            self._call("cuDeviceGet", byref(handle), index)
            self._call("cuDriverGetVersion", byref(version))
            text = ctypes.create_string_buffer(256)
            self._call("cuDeviceGetName", text, len(text), handle)
            major, minor = (self._attribute(which, handle) for which in COMPUTE_CAPABILITY)
            self._call("cuDevicePrimaryCtxRetain", byref(context), handle)
        except CudaError as error:
            raise BackendUnavailableError(f"device: {device!r} was asked for and cannot be used: {error}") from error
        self._handle, self._context = handle, context
        self.name = text.value.decode(errors="replace")
        self.compute_capability = f"{major}.{minor}"
        self.driver = f"{version.value // 1000}.{version.value % 1000 // 10}"  # 13010 is 13.1
        self._open = True
        self._memory: list[int] = []
        self._pinned: list[int] = []
        self._streams: list[int] = []

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.compute_capability}, driver {self.driver}"

    def activate(self) -> None:
        """Make the device's context the calling thread's."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Allocate device memory, 256-byte aligned; CudaError with OUT_OF_MEMORY where there is not enough."""
        pointer = c_uint64()
        self._call("cuMemAlloc_v2", byref(pointer), max(size, 1))
        self._memory.append(pointer.value)
        return pointer.value

    def allocate_pinned(self, size: int) -> NDArray[np.uint8]:
        """Allocate host memory (size,) that copies asynchronously; valid until `close`."""
        pointer = c_void_p()
        self._call("cuMemHostAlloc", byref(pointer), max(size, 1), 0)
        address = int(pointer.value or 0)
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def create_stream(self) -> int:
        """Make a stream that does not wait for the default one; valid until `close`."""
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), _NON_BLOCKING)
        self._streams.append(int(stream.value or 0))
        return self._streams[-1]

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        """Enqueue a copy of size bytes of pinned memory to the device, in the stream's order."""
        self._call("cuMemcpyHtoDAsync_v2", device, host, size, stream)

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        """Enqueue a copy of size bytes of the device to pinned memory, in the stream's order."""
        self._call("cuMemcpyDtoHAsync_v2", host, device, size, stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all work of the stream."""
        self._call("cuStreamSynchronize", stream)

    def close(self) -> None:
        """Give memory, streams and context back; a second call does nothing."""
        if not self._open:
            return
        # A lost device takes nothing back, so the driver's answers are not looked at. Streams go before the memory they use.
        self._driver.call("cuCtxSetCurrent", self._context)
        for stream in self._streams:
            self._driver.call("cuStreamDestroy_v2", stream)
        for pointer in self._memory:
            self._driver.call("cuMemFree_v2", pointer)
        for address in self._pinned:
            self._driver.call("cuMemFreeHost", address)
        for kept in (self._streams, self._memory, self._pinned):
            kept.clear()
        self._driver.call("cuDevicePrimaryCtxRelease_v2", self._handle)
        self._open = False

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the device if the block raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _attribute(self, which: int, handle: c_int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), which, handle)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = self._driver.call(name, *arguments)
        if code:
            raise CudaError(name, code, self._driver.error_name(code))


def _index_of(device: str) -> int:
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdecimal() or device == "cuda"):
        raise InvalidInputError(f"device: expected 'cuda' or 'cuda:N', got {device!r}")
    return int(number or 0)
