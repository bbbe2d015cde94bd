"""The variants that are built, recorded and tested ahead of time (AOT): name -> (variant, number of candidates)."""

from __future__ import annotations

from dataclasses import replace

from .variant import KernelVariant

# A captured graph keeps buffers for everything that a request may bring.
_GRAPH = KernelVariant(dim=384, given=True, extra=True, row_mask=True)
_TRUNK = replace(_GRAPH, hidden=64, trunk=True)
_ADAPTERS = replace(_TRUNK, identity=True, rank=4, activation="gelu")

AOT_VARIANTS: dict[str, tuple[KernelVariant, int]] = {
    "linear": (_GRAPH, 11),
    "linear_static": (replace(_GRAPH, dim=256), 11),  # the embedded table's dim
    "trunk": (_TRUNK, 11),
    "trunk_fp16": (replace(_TRUNK, weights="float16"), 11),
    "trunk_fp16_pooled": (
        replace(_TRUNK, weights="float16", pooling="mean", normalize=True, states="float16"),
        11,
    ),
    "adapters": (_ADAPTERS, 11),
    "adapters_32": (_ADAPTERS, 32),
    "adapters_64": (_ADAPTERS, 64),
    "linear_1000": (_GRAPH, 1000),
    "trunk_1000": (_TRUNK, 1000),
    "adapters_1000": (replace(_ADAPTERS, dim=1024), 1000),
}
