"""How a bundle's encoders are to run: the options of loading one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ipr_engine.cuda.recording import EMULATED
from ipr_engine.encoders.tiers import TIERS
from ipr_engine.errors import InvalidInputError

_DEVICE = re.compile(r"cpu|emulated|cuda(:\d+)?")


def on_gpu(device: str) -> bool:
    """Return whether a device runs the CUDA path: "cuda", "cuda:N", or "emulated", which takes its steps on the CPU."""
    return device == EMULATED or device.partition(":")[0] == "cuda"


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How encoders are to run; nothing of it changes what they mean.

    Attributes:
        isa: the static tier's instruction set.
        tier: who runs a transformer: "onnx", "torch", "tensorrt"; "auto" takes, on the CPU, onnx, else torch, and on a GPU
            tensorrt, else torch: the first whose package is installed and whose file the export has.
        device: "cpu", a device of CUDA such as "cuda:0", or "emulated": the steps of the CUDA path on the CPU, for tests.
        threads: of the onnx tier, >= 1; None is one a physical core.
        folders: exports (or transformers folders, for the torch tier) to look in for a model that a bundle only references.
        batches: of the buckets that a GPU's tiers plan, each with every length; None is the tier's own.
        fallback: "cpu" plans a second encoder there, which takes over should the GPU fail; None for nothing of the kind.
    """

    isa: str = "auto"
    tier: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    folders: tuple[str | os.PathLike[str], ...] = ()
    batches: tuple[int, ...] | None = None
    fallback: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.device, str) or not _DEVICE.fullmatch(self.device):
            raise InvalidInputError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {self.device!r}")
        if self.tier not in TIERS:
            raise InvalidInputError(f"tier: expected one of {', '.join(TIERS)}, got {self.tier!r}")
        if self.fallback not in (None, "cpu") or (self.fallback and not on_gpu(self.device)):
            raise InvalidInputError(
                f"fallback: expected None, or 'cpu' beside a device of CUDA, got {self.fallback!r} beside {self.device!r}"
            )
        if self.threads is not None and (type(self.threads) is not int or self.threads < 1):
            raise InvalidInputError(f"threads: expected an int >= 1 or None, got {self.threads!r}")
