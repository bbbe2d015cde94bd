"""`LoadOptions` defines every option of loading a bundle once: its default, its meaning, its flag on the command line.

A new option is a field of `LoadOptions`, the same name in `LoadKeywords`, and a line in the tiers that heed it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypedDict

from ipr_engine._options import Flag, option
from ipr_engine.cuda import EMULATED
from ipr_engine.encoders.tiers import HEEDED, TIERS
from ipr_engine.errors import InvalidInputError

ISAS = ("auto", "scalar", "avx2", "avx512")
# A runtime starts as many as it is told, and they wait for each other: 10,000 on two cores did not load within four minutes.
MOST_THREADS = 1024
_DEVICE = re.compile(r"cpu|emulated|cuda(:[0-9]+)?")


def on_gpu(device: str) -> bool:
    """Return whether a device runs the CUDA path: "cuda", "cuda:N", or "emulated", which takes its steps on the CPU."""
    return device == EMULATED or device.partition(":")[0] == "cuda"


def check_threads(threads: object) -> None:
    """Raise InvalidInputError for anything but None and an int from 1 to MOST_THREADS."""
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
        raise InvalidInputError(f"threads: expected an int from 1 to {MOST_THREADS}, or None, got {threads!r}")


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """`LoadOptions` are the options of running a bundle's encoders; none changes the meaning of an embedding.

    Each field is an argument of `Engine.load`; docs/usage.md has a table of them.

    Raises:
        InvalidInputError: an unknown tier or device, or options that do not go together.
    """

    isa: str = option(
        "auto",
        "the instruction set of the compiled code: `auto` (the widest this machine has), `scalar`, `avx2` or `avx512`",
        flag=Flag(choices=ISAS, help="instruction set", states_default=True),
    )
    tier: str = option(
        "auto",
        "who runs a transformer, where the heads read one: `onnx`, `openvino`, `torch`, `triton` or `tensorrt`. `auto` takes, on the "
        "CPU, onnx, else openvino, else torch, and on a GPU tensorrt, else torch: the first whose package is installed and that has the "
        "heads' embeddings. onnx and openvino are timed against each other once where both are installed ([encoders.md](encoders.md))",
        flag=Flag(choices=TIERS, help="who runs them (default auto: docs/encoders.md)", states_default=True),
    )
    device: str = option(
        "cpu",
        "where it runs: `cpu`, or a device of CUDA such as `cuda:0`, where `route` decides too ([gpu.md](gpu.md)). `emulated` takes "
        "the steps of the CUDA path on the CPU, for tests",
        flag=Flag(help="where they run, such as cuda:0 (default cpu)", states_default=True),
    )
    threads: int | None = option(
        None,
        "threads of the onnx and openvino tiers, 1 to 1,024; by default one a physical core",
        flag=Flag(
            takes="whole number",
            metavar="N",
            help="of the onnx and openvino tiers (default one a physical core)",
            states_default=True,
        ),
    )
    encoder_folders: Sequence[str | os.PathLike[str]] = option(
        (),
        "exports (or transformers folders, for the torch tier) to look in for a transformer that the bundle references and does not "
        "contain",
        flag=Flag(
            name="--encoder-folder",
            takes="list",
            metavar="DIR",
            help="an export to look in for a transformer that the bundle references and does not contain; repeatable",
            states_default=True,
        ),
    )
    batches: Sequence[int] | None = option(
        None,
        "batch sizes of the shapes planned on a GPU, `(1, 8, 64)` say; by default the tier's own. More take more memory and time",
    )
    fallback: str | None = option(
        None,
        "`cpu` plans the bundle there as well, to fail over when a GPU fails in use; by default calls then raise",
    )

    def __post_init__(self) -> None:
        # As tuples: a list that its owner changes later changes no options.
        object.__setattr__(self, "encoder_folders", _as_folders(self.encoder_folders))
        if self.batches is not None:
            object.__setattr__(self, "batches", _as_batches(self.batches))
        if not isinstance(self.device, str) or not _DEVICE.fullmatch(self.device):
            raise InvalidInputError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {self.device!r}")
        if self.tier not in TIERS:
            raise InvalidInputError(f"tier: expected one of {', '.join(TIERS)}, got {self.tier!r}")
        if self.fallback not in (None, "cpu") or (self.fallback and not on_gpu(self.device)):
            raise InvalidInputError(
                f"fallback: expected None, or 'cpu' beside a device of CUDA, got {self.fallback!r} beside {self.device!r}"
            )
        check_threads(self.threads)
        if self.batches is not None and not on_gpu(self.device):
            raise InvalidInputError(
                f"batches: shapes are planned on a GPU alone, got {list(self.batches)!r} beside device {self.device!r}; leave batches "
                "out, or pass device='cuda'"
            )
        for name, tiers in HEEDED.items():
            by_fallback = name == "threads" and self.fallback is not None  # whose tier is "auto"
            if getattr(self, name) is not None and self.tier not in ("auto", *tiers) and not by_fallback:
                raise InvalidInputError(
                    f"{name}: tier {self.tier!r} does not heed it, {' and '.join(tiers)} do; leave it out, got "
                    f"{getattr(self, name)!r}"
                )

    def for_cpu(self) -> Self:
        """Return the options that plan the same bundle for the CPU, where a GPU failed or may fail."""
        return replace(self, device="cpu", tier="auto", batches=None, fallback=None)


def _as_folders(folders: object) -> tuple[str | os.PathLike[str], ...]:
    if isinstance(folders, (str, os.PathLike)):
        raise InvalidInputError(
            f"encoder_folders: expected a list of folders, got one, {folders!r}; pass [{folders!r}]"
        )
    if isinstance(folders, bytes) or not isinstance(folders, Iterable):
        raise InvalidInputError(f"encoder_folders: expected a list of folders, got {folders!r}")
    given = tuple(folders)
    for folder in given:
        if folder == "" or not isinstance(folder, (str, os.PathLike)) or not isinstance(os.fspath(folder), str):
            raise InvalidInputError(f"encoder_folders: expected paths, each a str or a Path, got {folder!r}")
    return given


def _as_batches(batches: object) -> tuple[int, ...]:
    given = () if isinstance(batches, (str, bytes)) or not isinstance(batches, Iterable) else tuple(batches)
    if not given or any(type(batch) is not int or batch < 1 for batch in given):
        raise InvalidInputError(f"batches: expected a list of ints >= 1, or None, got {batches!r}")
    return given


class EncoderKeywords(TypedDict, total=False):
    """`EncoderKeywords` are `LoadOptions` but `fallback` as keywords: `load` of a serving engine has a `fallback` of its own."""

    isa: str
    tier: str
    device: str
    threads: int | None
    encoder_folders: Sequence[str | os.PathLike[str]]
    batches: Sequence[int] | None


class LoadKeywords(EncoderKeywords, total=False):
    """`LoadKeywords` are `LoadOptions` as keywords: `Engine.load(path, **options: Unpack[LoadKeywords])`."""

    fallback: str | None
