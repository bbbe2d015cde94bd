"""The compiler gives the GPU kernels registers, shared memory, stack and local memory; they are read from the cubins.

Every variant of kernels/build.py, and every kernel of the encoders of kernels/bert/bert_build.py, is compiled for every
architecture and not run: no GPU is needed, and no figure here is a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..harness.results import Line
from ..harness.turns import FULL, Size

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")


def run(size: Size = FULL) -> Iterator[Line]:
    yield from _decide(size)
    yield from _encoder(size)


def _encoder(size: Size) -> Iterator[Line]:
    import triton

    from ipr_engine.kernels.bert.bert_build import SHAPES, built

    for name, shape in list(SHAPES.items())[: size.of(len(SHAPES), 1)]:
        for arch in size.of(ARCHITECTURES, ARCHITECTURES[:1]):
            for line in built(shape, arch, size.of(("few", "some", "many"), ("few",))):
                case = f"bert_{name}_{line.pop('rows')}_{line.pop('kernel')}"
                yield {
                    "op": "resources",
                    "case": case,
                    "impl": arch,
                    "dim": shape.dim,
                    **line,
                    "triton": triton.__version__,
                }


def _decide(size: Size) -> Iterator[Line]:
    from ipr_engine.kernels.build import AOT_VARIANTS, compile_cubin
    from ipr_engine.kernels.cubin import CubinMetadata, write
    from ipr_engine.kernels.variant import launch_params

    with tempfile.TemporaryDirectory() as folder:
        for name, (variant, models) in list(AOT_VARIANTS.items())[: size.of(len(AOT_VARIANTS), 1)]:
            for arch in size.of(ARCHITECTURES, ARCHITECTURES[:1]):
                cubin, metadata = compile_cubin(variant.on(arch), launch_params(models, variant.dim, arch), arch)
                built = CubinMetadata.read(write(Path(folder), cubin, metadata))
                yield {
                    "op": "resources", "case": name, "impl": arch, "models": models, "dim": variant.dim,
                    "shape_class": built.params["shape_class"], "registers": built.registers,
                    "threads": 32 * built.num_warps, "shared_bytes": built.shared_bytes,
                    "stack_bytes": built.stack_bytes, "local_bytes": built.local_bytes, "cubin_bytes": len(cubin),
                    "triton": built.triton,
                }  # fmt: skip
