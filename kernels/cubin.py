"""A `CubinKernel` loads and launches a cubin of decide_kernel through the CUDA driver, without Triton or a link against CUDA.

    kernel = CubinKernel.find(folder, variant, params, device=0)    # reads, checks the hash, loads
    launch = DecideLaunch(plan, request, result, kernel=kernel)     # run.py; or kernel.launch(grid, arguments, stream)

kernels/build.py makes the files. The launch path has run on one H200 (docs/kernels.md).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ipr_engine.cuda import driver
from ipr_engine.errors import BackendUnavailableError, CubinError, InvalidInputError

from .variant import KernelVariant, LaunchParams

VERSION = 1
HIDDEN_POINTERS = 2  # Triton appends the pointers of its global and its profiling scratch; this kernel uses neither
BYTES = {"i32": 4}  # of an argument; pointers have 8
SHARED_WITHOUT_ASKING = 48 << 10  # bytes of dynamic shared memory that CUDA grants every kernel
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


@dataclass(frozen=True, kw_only=True)
class CubinMetadata:
    """A `CubinMetadata` holds the content of NAME.json, which describes NAME.cubin.

    Attributes:
        kernel: the symbol. arch: "sm_90". arguments: (name, Triton type) in order, without Triton's hidden pointers.
        shared_bytes: dynamic shared memory. registers, stack_bytes, local_bytes: of a thread, from cuobjdump; a spill is
            on the stack. constants: the compile-time arguments. form, params: what it was compiled for.
        triton: its version. sha256: of the cubin.
    """

    schema_version: int
    name: str
    kernel: str
    arch: str
    sha256: str
    arguments: tuple[tuple[str, str], ...]
    constants: dict[str, Any]
    form: dict[str, Any]
    params: dict[str, Any]
    num_warps: int
    shared_bytes: int
    registers: int
    stack_bytes: int
    local_bytes: int
    triton: str

    @classmethod
    def of(
        cls, cubin: bytes, *, kernel: str, arch: str, shared_bytes: int, triton: str, variant: KernelVariant,
        params: LaunchParams, resources: dict[str, int],
    ) -> CubinMetadata:  # fmt: skip
        """Describe a cubin that was just compiled."""
        return cls(
            schema_version=VERSION,
            name=file_name(variant, params, arch),
            kernel=kernel,
            arch=arch,
            sha256=hashlib.sha256(cubin).hexdigest(),
            arguments=tuple(variant.signature().items()),
            constants=variant.constants(params),
            form=asdict(variant),
            params=asdict(params),
            num_warps=params.num_warps,
            shared_bytes=shared_bytes,
            triton=triton,
            **resources,
        )

    @classmethod
    def read(cls, path: Path) -> CubinMetadata:
        """Read NAME.json. Raises CubinError: the file is missing, unreadable, of another version or has other keys."""
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CubinError(f"{path}: expected the metadata of a cubin as JSON: {error}") from error
        if not isinstance(found, dict) or found.get("schema_version") != VERSION:
            raise CubinError(f"{path}: expected schema_version {VERSION}; build the cubin again")
        wanted = {field.name for field in fields(cls)}
        if set(found) != wanted:
            raise CubinError(f"{path}: missing or unknown keys: {', '.join(sorted(set(found) ^ wanted))}")
        return cls(**{**found, "arguments": tuple((name, kind) for name, kind in found["arguments"])})

    def argument_bytes(self) -> list[int]:
        """Return the size of every parameter of the cubin, Triton's hidden pointers last."""
        return [BYTES.get(kind, 8) for _, kind in self.arguments] + [8] * HIDDEN_POINTERS


def file_name(variant: KernelVariant, params: LaunchParams, arch: str) -> str:
    return f"{variant.name(params)}.{arch}"


def write(folder: Path, cubin: bytes, metadata: CubinMetadata) -> Path:
    """Write NAME.cubin and NAME.json; returns the latter's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{metadata.name}.cubin").write_bytes(cubin)
    path = folder / f"{metadata.name}.json"
    path.write_text(json.dumps(asdict(metadata), indent=2, sort_keys=True) + "\n", "utf-8")
    return path


def pack_arguments(metadata: CubinMetadata, values: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Return cuLaunchKernel's array of pointers to arguments, and the arguments, which must outlive the launch.

    Args:
        values: integers, or things with data_ptr() (torch tensors), in the order of metadata.arguments.
    Raises:
        InvalidInputError: their number, or a value, does not fit the signature.
    """
    if len(values) != len(metadata.arguments):
        raise InvalidInputError(f"arguments: expected {len(metadata.arguments)}, got {len(values)}")
    held: list[Any] = []
    for (name, kind), value in zip(metadata.arguments, values, strict=True):
        pointer = kind.startswith("*")
        if pointer:
            number = value.data_ptr() if hasattr(value, "data_ptr") else value
        else:
            number = value
        low, high = (0, 2**64) if pointer else (-(2**31), 2**31)
        if not isinstance(number, int) or not low <= number < high:
            raise InvalidInputError(
                f"{name}: expected {'an address' if pointer else 'a 32-bit integer'}, got {value!r}"
            )
        held.append(ctypes.c_uint64(number) if pointer else ctypes.c_int32(number))
    held += [ctypes.c_uint64(0)] * HIDDEN_POINTERS
    return (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held)), held


def runs_on(arch: str, device: str) -> bool:
    """Return whether a cubin of the architecture `arch` runs on `device`, another's name."""
    # Within a generation newer minor versions run older cubins. From sm_90 on Triton compiles for sm_90a and the like,
    # which run on that architecture alone.
    built, here = (int(name.removeprefix("sm_")) for name in (arch, device))
    return built == here if built >= 90 else built // 10 == here // 10 and built <= here


class LaunchDriver:
    """A `LaunchDriver` makes the driver's calls that a launch needs, each checked; making one loads the library.

    Attributes:
        devices: how many CUDA devices this process sees.
    Raises:
        BackendUnavailableError: no driver here, or it reports no usable device.
    """

    def __init__(self, library: Any = None) -> None:
        """Load the driver. library: an object with libcuda's functions; None loads the driver's own."""
        try:
            self._driver = driver.Driver(library)
        except OSError as error:
            raise BackendUnavailableError(
                f"cubin: the NVIDIA driver's {driver.LIBRARY} cannot be loaded ({error}); install the driver, or decide on the CPU"
            ) from error
        self.call("cuInit", 0)
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        self.devices = count.value
        if not self.devices:
            raise BackendUnavailableError("cubin: the driver is there, but no CUDA device is visible to this process")

    def call(self, name: str, *arguments: Any) -> None:
        """Call one function; BackendUnavailableError where it fails."""
        code = self._driver.call(name, *arguments)
        if code:
            reason = f"CUDA error {code} ({self._driver.error_text(code)})"
            raise BackendUnavailableError(f"cubin: {name} failed: {reason}")

    def arch(self, device: int) -> str:
        """Return a device's architecture, "sm_90" say."""
        if not 0 <= device < self.devices:
            raise BackendUnavailableError(f"cubin: expected a device from 0 to {self.devices - 1}, got {device}")
        numbers = []
        for attribute in driver.COMPUTE_CAPABILITY:
            value = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
            numbers.append(value.value)
        return f"sm_{numbers[0]}{numbers[1]}"


class CubinKernel:
    """A `CubinKernel` is a loaded cubin. It lives in the device's primary context, the one torch uses, for as long as the process does.

    Raises:
        CubinError: the metadata is damaged, or the cubin's hash is not the one it states.
        BackendUnavailableError: no driver, no such device, a cubin of an architecture that does not run there.
    """

    def __init__(self, path: Path, *, device: int = 0, libcuda: LaunchDriver | None = None) -> None:
        self.metadata = CubinMetadata.read(path)
        try:
            cubin = path.with_name(f"{self.metadata.name}.cubin").read_bytes()
        except OSError as error:
            raise CubinError(f"{path}: its cubin cannot be read: {error}") from error
        if hashlib.sha256(cubin).hexdigest() != self.metadata.sha256:
            raise CubinError(f"{path}: the cubin's sha256 is not the one stated here; build it again")
        self._libcuda = libcuda or LaunchDriver()
        here = self._libcuda.arch(device)
        if not runs_on(self.metadata.arch, here):
            raise BackendUnavailableError(
                f"{path.name}: built for {self.metadata.arch}, but device {device} is {here}; build with --arch {here}"
            )
        call = self._libcuda.call
        self._context = ctypes.c_void_p()
        call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._enter()
        try:
            module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
            call("cuModuleLoadData", ctypes.byref(module), cubin)
            call("cuModuleGetFunction", ctypes.byref(self._function), module, self.metadata.kernel.encode())
            if self.metadata.shared_bytes > SHARED_WITHOUT_ASKING:
                call("cuFuncSetAttribute", self._function, _MAX_DYNAMIC_SHARED, self.metadata.shared_bytes)
        finally:
            self._leave()

    @classmethod
    def find(
        cls,
        folder: Path,
        variant: KernelVariant,
        params: LaunchParams,
        *,
        device: int = 0,
        libcuda: LaunchDriver | None = None,
    ) -> CubinKernel:
        """Load the cubin of `folder` for a variant and the device's architecture; CubinError names the architectures found instead."""
        libcuda = libcuda or LaunchDriver()
        here = libcuda.arch(device)
        stem = variant.name(params)
        known = sorted(folder.glob(f"{stem}.sm_*.json"))
        for path in known:
            if runs_on(path.stem.rpartition(".")[2], here):
                return cls(path, device=device, libcuda=libcuda)
        found = ", ".join(path.stem.rpartition(".")[2] for path in known) or "none"
        raise CubinError(
            f"{folder}: no cubin {stem} for {here} (architectures there: {found}); "
            f"python -m ipr_engine.kernels.build --arch {here} makes it"
        )

    def launch(self, grid: tuple[int, int, int], arguments: Sequence[Any], stream: int) -> None:
        """Enqueue on a stream (a CUstream as an integer) of the device; may be captured into a graph."""
        packed, _held = pack_arguments(self.metadata, arguments)  # alive until cuLaunchKernel has read them
        self._enter()
        try:
            self._libcuda.call(
                "cuLaunchKernel", self._function, *grid, 32 * self.metadata.num_warps, 1, 1,
                self.metadata.shared_bytes, ctypes.c_void_p(stream), packed, None,
            )  # fmt: skip
        finally:
            self._leave()

    def _enter(self) -> None:
        self._libcuda.call("cuCtxPushCurrent_v2", self._context)

    def _leave(self) -> None:
        self._libcuda.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
