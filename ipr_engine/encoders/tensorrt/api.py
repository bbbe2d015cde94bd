"""An `Api` is the TensorRT in use: NVIDIA's `tensorrt` (10.13 or later, 11) or `tensorrt_rtx`, one API and three differences.

`tensorrt` compiles for the GPU at hand, needs it to build, and keeps a timing cache. `tensorrt_rtx` builds on any machine a plan
that GPUs of the compute capabilities which it names compile at first use; those kernels it keeps in a runtime cache.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from ipr_engine._extras import pip_extra
from ipr_engine.cuda.driver import Device
from ipr_engine.encoders.tensorrt import bindings
from ipr_engine.errors import BackendUnavailableError, InvalidInputError

# The wheels tensorrt and tensorrt_rtx re-export these; each is whole without the other name.
MODULES = {"tensorrt": ("tensorrt", "tensorrt_bindings"), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
ELSEWHERE = (
    "Take tier='torch', which runs the same model in a CUDA graph"
    f", or NVIDIA's data-centre TensorRT ({pip_extra('tensorrt')})"
)
OLDEST = {"tensorrt": (10, 13), "tensorrt_rtx": (1, 7)}  # the versions in which the calls of bindings.py were looked up


@dataclass(frozen=True, eq=False)
class Api:
    """An `Api` is one TensorRT, loaded.

    Attributes:
        flavour: "tensorrt" or "tensorrt_rtx". version: of the package.
        module: the Python module. logger: its logger; it keeps the last warnings and errors (`messages`).
        portable: whether a plan is built for any GPU, and without one.
    """

    flavour: str
    version: str
    module: Any
    logger: Any
    messages: deque[str]

    @property
    def portable(self) -> bool:
        return self.flavour == "tensorrt_rtx"

    @property
    def compute_capabilities(self) -> tuple[str, ...] | None:
        """The compute capabilities that this TensorRT names as those it builds for, "8.9" say; None where it names none."""
        named = getattr(self.module, "ComputeCapability", None)
        if named is None:
            return None
        found = (re.fullmatch(r"SM(\d+)(\d)", name) for name in dir(named))  # NONE and CURRENT are no GPUs
        return tuple(f"{major}.{minor}" for major, minor in sorted((int(one[1]), int(one[2])) for one in found if one))

    def require_gpu(self, device: Device) -> None:
        """Raise BackendUnavailableError where this TensorRT names the GPUs that it builds for, and `device` is none of them."""
        named = self.compute_capabilities
        if named is not None and device.compute_capability not in named:
            raise BackendUnavailableError(
                f"device: {self} names {', '.join(named)} as the compute capabilities that it builds for, and this is {device}: "
                f"to build again changes nothing. {ELSEWHERE}"
            )

    def builder(self) -> bindings.Builder:
        """Make a builder; BackendUnavailableError where it needs a GPU and there is none."""
        try:
            made: bindings.Builder = self.module.Builder(self.logger)
        except (RuntimeError, TypeError) as error:  # pybind11's TypeError: the factory returned None
            raise BackendUnavailableError(f"{self} cannot make a builder here: {self.why(error)}") from error
        return made

    def runtime(self) -> bindings.Runtime:
        """Make a run time; BackendUnavailableError where TensorRT makes none."""
        try:
            made: bindings.Runtime = self.module.Runtime(self.logger)
        except (RuntimeError, TypeError) as error:
            raise BackendUnavailableError(f"{self} cannot make a runtime here: {self.why(error)}") from error
        return made

    def why(self, error: object = None) -> str:
        """Return TensorRT's last errors as text for a message, and forget them."""
        said = [*([str(error)] if error else []), *self.messages]
        self.messages.clear()
        return "; ".join(said) or "TensorRT gave no reason"

    def __str__(self) -> str:
        return f"{self.flavour} {self.version}"


def load_api(flavour: str = "auto") -> Api:
    """Import one flavour of TensorRT. The two never share a process: their libraries share symbols.

    Args:
        flavour: "tensorrt", "tensorrt_rtx", or "auto": the first of the two that is installed.
    Raises:
        InvalidInputError: another flavour.
        BackendUnavailableError: it is not installed, does not load, or is too old.
    """
    if flavour not in ("auto", *MODULES):
        raise InvalidInputError(f"flavour: expected auto, {' or '.join(MODULES)}, got {flavour!r}")
    for kind in MODULES if flavour == "auto" else (flavour,):
        for name in MODULES[kind]:
            found = importlib.util.find_spec(name)
            if found is None or found.origin is None:  # no origin: a folder of type stubs
                continue
            try:
                module = importlib.import_module(name)
            except (ImportError, OSError, RuntimeError) as error:
                raise BackendUnavailableError(f"{name} is installed and does not load: {error}") from error
            return make_api(kind, module)
    raise BackendUnavailableError(
        f"the tensorrt tier ({flavour}) needs TensorRT: {pip_extra('tensorrt')} (data-centre GPUs; its libraries come from NVIDIA's "
        f"package index) or {pip_extra('tensorrt-rtx')} (RTX GPUs; builds without one)"
    )


def make_api(flavour: str, module: Any) -> Api:
    """Return the API around an imported module; BackendUnavailableError below OLDEST."""
    version = str(module.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST[flavour]:
        wanted = ".".join(map(str, OLDEST[flavour]))
        raise BackendUnavailableError(f"{flavour}: expected {wanted} or later, got {version}: upgrade it")
    messages: deque[str] = deque(maxlen=5)
    return Api(flavour, version, module, _make_logger(module, messages), messages)


def _make_logger(module: Any, messages: deque[str]) -> Any:
    kept = (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR)

    class Log(module.ILogger):  # type: ignore[misc]
        """A `Log` keeps errors for the exception that follows them; nothing is printed."""

        def log(self, severity: Any, msg: str) -> None:
            if severity in kept:
                messages.append(msg.strip())

    return Log()
