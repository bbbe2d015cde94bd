"""This file is the table of the tiers that run a transformer; a tier's module is imported when the tier is asked for.

A new tier is its own file, with a class that has `open_export`, and a row here; the packages it needs are an extra in pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Tier(NamedTuple):
    """A `Tier` is one way to run a transformer.

    Attributes:
        encoder: "module:class" of this package; the class's `open_export` loads an export (registry.TransformerTier).
        packages: one of them must be installed. extras: each brings one.
        roles: dtype -> the files of an export, one of which the tier needs; a dtype that is no key cannot be served.
        heeds: options of loading that this tier heeds, and not every other one does.
        gpu_encoder: `encoder` where the tier has another class on a GPU; None where it has not.
    """

    encoder: str
    packages: tuple[str, ...]
    extras: tuple[str, ...]
    roles: Mapping[str | None, tuple[str, ...]]
    heeds: tuple[str, ...]
    gpu_encoder: str | None = None


TRANSFORMER_TIERS: Mapping[str, Tier] = MappingProxyType(
    {
        "onnx": Tier(
            encoder="onnx:OnnxEncoder",
            packages=("onnxruntime",),
            extras=("onnx",),
            roles={None: ("onnx", "onnx_cpu"), "int8": ("onnx_int8",)},
            heeds=("threads",),
        ),
        "openvino": Tier(
            encoder="openvino:OpenVinoEncoder",
            packages=("openvino",),
            extras=("openvino",),
            roles={None: ("onnx",), "bfloat16-mixed": ("onnx",)},
            heeds=("threads",),
        ),
        "torch": Tier(
            encoder="torch:TorchEncoder",
            gpu_encoder="torch_graphs:TorchGraphEncoder",
            packages=("torch",),
            extras=("gpu",),
            roles={None: ("weights",), "bfloat16": ("weights",)},
            heeds=("batches",),
        ),
        "triton": Tier(
            encoder="triton_graphs:TritonEncoder",
            packages=("triton",),
            extras=("gpu",),
            roles={None: ("weights",)},
            heeds=("batches",),
        ),
        "tensorrt": Tier(
            encoder="tensorrt.encoder:TensorRtEncoder",
            packages=("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"),
            extras=("tensorrt", "tensorrt-rtx"),
            roles={None: ("onnx",)},
            heeds=("batches",),
        ),
    }
)
# The tiers that "auto" tries on a kind of device, in this order; the first that can serve an export does, but for TIMED.
AUTO: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"cpu": ("onnx", "openvino", "torch"), "emulated": ("torch",), "cuda": ("tensorrt", "torch", "onnx")}
)
ON_GPU_ALONE = ("tensorrt", "triton")
# On a CPU "auto" times these against each other where several of them can serve an export (tier_choice.py). torch is behind them
# on every length of docs/encoder-bench, and takes seconds to import.
TIMED = ("onnx", "openvino")
HEEDED = {  # an option that some tiers heed -> those
    name: tuple(tier for tier, row in TRANSFORMER_TIERS.items() if name in row.heeds) for name in ("threads", "batches")
}
TIERS = ("auto", *TRANSFORMER_TIERS)
FOLDER_TIER = "torch"  # the tier that runs a transformers folder as it is, without an export
