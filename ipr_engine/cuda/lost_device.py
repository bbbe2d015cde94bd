"""A `DeviceFailure` admits callers to a device in turn until it fails, and then tells why there is no further work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ipr_engine.errors import BackendUnavailableError, DeviceLostError, IprError, OutOfDeviceMemoryError

# What CUDA says where it refused one piece of work: the context is sound, and does the next one. Each error about a capture has
# "captur" in it.
REFUSED = ("too many resources requested for launch", "captur")
PURPOSE = "the GPU path"  # the words of an error where torch or triton is missing


class DeviceFailure:
    """A `DeviceFailure` admits one caller at a time to a device, and remembers its failure: a CUDA context does not recover."""

    def __init__(self, torch: Any, device: str, lock: threading.Lock | None = None) -> None:
        """Admit callers to `device`. torch: the module. lock: shared with other work on the same buffers; None is a lock of its own."""
        self._torch = torch
        self._device, self._reason, self._told = device, "", True
        self.turn = threading.Lock() if lock is None else lock

    @property
    def failed(self) -> bool:
        return bool(self._reason)

    def lose(self, error: RuntimeError) -> None:
        """Remember the failure that `error` reports, to be told by `exclusive`; raise the error where it is none.

        Raises:
            OutOfDeviceMemoryError, BackendUnavailableError: this work was refused, and the device goes on.
        """
        if isinstance(error, IprError) or not (is_device_error(self._torch, error) or ran_out(self._torch, error)):
            raise error
        told = str(error).partition("\n")[0]
        if ran_out(self._torch, error):
            raise OutOfDeviceMemoryError(
                f"device: out of memory on {self._device} ({told}); free memory of the device, or use smaller or fewer batches"
            ) from error
        if any(words in told for words in REFUSED):
            raise BackendUnavailableError(f"device: {self._device} refused the work ({told}); ask again") from error
        self._reason, self._told = told, False

    @contextmanager
    def exclusive(self, order: Callable[[], Any]) -> Iterator[None]:
        """Admit one caller at a time, inside the context that `order` makes; a device that failed admits none."""
        with self.turn:
            if not self._told:
                self._told = True
                raise self._in_flight()
            if self._reason:
                raise DeviceLostError(
                    f"device: {self._device} failed before ({self._reason}); this engine does no further work, load "
                    "another one in a new process, or with fallback='cpu'"
                )
            try:
                with order():
                    yield
            except IprError:
                raise
            except RuntimeError as error:
                self.lose(error)
                self._told = True
                raise self._in_flight() from error

    def _in_flight(self) -> DeviceLostError:
        return DeviceLostError(
            f"device: {self._device} failed in flight: {self._reason}; this engine does no further work"
        )


def ran_out(torch: Any, error: BaseException) -> bool:
    """Return whether device memory ran out."""
    # Out of memory within a capture, torch ends the capture with an error of its own, whose context is the first one.
    kind = torch.OutOfMemoryError, OutOfDeviceMemoryError
    return (
        isinstance(error, kind)
        or isinstance(error.__context__, kind)
        # of a launch, which allocates too: torch's and Triton's words
        or (is_device_error(torch, error) and "out of memory" in str(error).partition("\n")[0])
    )


def is_device_error(torch: Any, error: BaseException) -> bool:
    """Return whether an error of torch or Triton reports a failed device: each says CUDA."""
    kind = getattr(torch, "AcceleratorError", ())  # torch 2.8 and later
    text = str(error)
    return isinstance(error, kind) or any(
        words in text for words in ("CUDA error", "CUDA driver", "Triton Error [CUDA]")
    )
