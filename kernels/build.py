"""Build cubins of decide_kernel for named architectures without a GPU; kernels/cubin.py loads them without Triton.

    python -m ipr_engine.kernels.build --arch sm_80 --arch sm_90 --out DIR                      those of AOT_VARIANTS
    python -m ipr_engine.kernels.build --arch sm_90 --out DIR --models 11 --dim 384 --hidden 64 --trunk

Each variant is NAME.cubin beside NAME.json (cubin.CubinMetadata). Put into ipr_engine/kernels/cubins before building a wheel,
they travel in it. A variant serves any number of candidates of its shape class, any batch and any number of policies.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import BackendUnavailableError, InvalidInputError, IprError

from .compiling import PURPOSE, compile_ahead
from .cubin import CubinMetadata, write
from .variant import KernelVariant, LaunchParams, options, takes_pdl

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

# A captured graph keeps buffers for everything that a request may bring.
_GRAPH = KernelVariant(dim=384, given=True, extra=True, row_mask=True)
_TRUNK = replace(_GRAPH, hidden=64, trunk=True)
_ADAPTERS = replace(_TRUNK, identity=True, rank=4, activation="gelu")

# Behind an encoder that leaves its last LayerNorm to the reader: the last node of its graph, answers in the host's memory.
_LAST_NODE = replace(
    _TRUNK, weights="float16", pooling="mean", normalize=True, states="float16", state_eps=1e-12, x_copy=True, done=True,
    pdl=True,
)  # fmt: skip
_LAST_NODE_FP32 = replace(_LAST_NODE, weights="float32")  # as the engine's own heads are packed
_WIDE = replace(_LAST_NODE_FP32, dim=768)

# Built, recorded and tested ahead of time (AOT): name -> (variant, number of candidates); KernelVariant.on(architecture) of each.
AOT_VARIANTS: dict[str, tuple[KernelVariant, int]] = {
    "linear": (_GRAPH, 11),
    "linear_static": (replace(_GRAPH, dim=256), 11),  # the embedded table's dim
    "trunk": (_TRUNK, 11),
    "trunk_fp16": (replace(_TRUNK, weights="float16"), 11),
    "trunk_fp16_pooled": (
        replace(_TRUNK, weights="float16", pooling="mean", normalize=True, states="float16"),
        11,
    ),
    "trunk_fp16_norm_pooled": (_LAST_NODE, 11),
    "trunk_norm_pooled": (_LAST_NODE_FP32, 11),
    "trunk_768": (replace(_TRUNK, dim=768), 11),
    "trunk_768_norm_pooled": (_WIDE, 11),
    "trunk_768_norm_pooled_32": (_WIDE, 32),
    "trunk_768_fp16_norm_pooled_32": (replace(_WIDE, weights="float16"), 32),
    "adapters_768_norm_pooled": (replace(_WIDE, identity=True, rank=4, activation="gelu"), 11),
    "adapters": (_ADAPTERS, 11),
    "adapters_32": (_ADAPTERS, 32),
    "adapters_64": (_ADAPTERS, 64),
    "adapters_100": (_ADAPTERS, 100),
    "linear_1000": (_GRAPH, 1000),
    "trunk_1000": (_TRUNK, 1000),
    "forest": (replace(_TRUNK, trees=30, depth=8), 11),
    "adapters_1000": (replace(_ADAPTERS, dim=1024), 1000),
}


def compile_kernel(variant: KernelVariant, params: LaunchParams, arch: str) -> Any:
    """Compile one variant for one architecture; the answer is Triton's, with its text in PTX and its cubin in `asm`.

    Raises:
        BackendUnavailableError: triton is missing, or runs its interpreter in this process.
        InvalidInputError: an unknown architecture, or one that has no programmatic dependent launch where `pdl` asks for it.
    """
    if arch not in ARCHITECTURES:
        raise InvalidInputError(f"arch: expected one of {', '.join(ARCHITECTURES)}, got {arch!r}")
    if variant.pdl and not takes_pdl(arch):
        raise InvalidInputError(f"pdl: expected an architecture from sm_90 on, got {arch}; leave it out")
    need("triton", PURPOSE, "gpu")
    from .decide import decide_kernel

    return compile_ahead(
        decide_kernel, variant.signature(), variant.constants(params), arch, options(params, pdl=variant.pdl)
    )


def compile_cubin(variant: KernelVariant, params: LaunchParams, arch: str) -> tuple[bytes, CubinMetadata]:
    """Compile one variant for one architecture and read from the cubin what it needs.

    Raises: as compile_kernel; BackendUnavailableError where the cubin's parameters are not the ones that a launch gives.
    """
    compiled = compile_kernel(variant, params, arch)
    for name in ("global_scratch_size", "profile_scratch_size"):
        if getattr(compiled.metadata, name, 0):
            raise BackendUnavailableError(
                f"{variant.name(params)} on {arch}: Triton asks for {name}, which no launcher gives"
            )
    cubin: bytes = compiled.asm["cubin"]
    metadata = CubinMetadata.of(
        cubin,
        kernel=compiled.metadata.name,
        arch=arch,
        shared_bytes=compiled.metadata.shared,
        triton=_version(),
        variant=variant,
        params=params,
        resources=read_resources(cubin),
    )
    if read_parameter_bytes(cubin) != metadata.argument_bytes():
        raise BackendUnavailableError(
            f"{PURPOSE}: triton {_version()} gave the kernel parameters of {read_parameter_bytes(cubin)} bytes, "
            f"expected {metadata.argument_bytes()}"
        )
    return cubin, metadata


def _version() -> str:
    return str(need("triton", PURPOSE, "gpu").__version__)


def read_resources(cubin: bytes) -> dict[str, int]:
    """Return registers, stack and local memory of a thread, read from the cubin by cuobjdump, which Triton brings."""
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", cuobjdump(cubin, "--dump-resource-usage"))
    if found is None:
        raise BackendUnavailableError(
            "compiling cubins: cuobjdump --dump-resource-usage printed no REG, STACK and LOCAL"
        )
    return dict(zip(("registers", "stack_bytes", "local_bytes"), map(int, found.groups()), strict=True))


def read_parameter_bytes(cubin: bytes) -> list[int]:
    """Return the size of every kernel parameter, in order, read from the cubin."""
    found = re.findall(
        r"Ordinal : (0x[0-9a-f]+)\s+Offset  : \S+\s+Size    : (0x[0-9a-f]+)", cuobjdump(cubin, "--dump-elf")
    )
    return [int(size, 16) for _, size in sorted(found, key=lambda pair: int(pair[0], 16))]


def cuobjdump(cubin: bytes, option: str) -> str:
    """Return what cuobjdump prints of a cubin."""
    tool = need("triton", PURPOSE, "gpu").knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ipr_engine.kernels.build", description=__doc__.split("\n")[0])
    parser.add_argument("--arch", action="append", required=True, choices=ARCHITECTURES)
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME.cubin and NAME.json")
    parser.add_argument("--shipped", action="append", choices=sorted(AOT_VARIANTS), help="only these of AOT_VARIANTS")
    parser.add_argument("--models", type=int, help="a variant of one's own: the number of candidates")
    parser.add_argument("--dim", type=int, help="and the width of x; the flags below say the rest")
    for field in fields(KernelVariant):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default)
        elif field.name != "dim":
            parser.add_argument(flag, type=type(field.default), default=field.default)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    parsed = vars(parser.parse_args(arguments))
    archs, out, models, shipped = (parsed.pop(name) for name in ("arch", "out", "models", "shipped"))
    if (models is None) != (parsed["dim"] is None) or (models is not None and shipped):
        parser.error("--models and --dim go together, and without --shipped")
    try:
        for arch in archs:
            if models:
                wanted = [(KernelVariant(**parsed), models)]
            else:
                wanted = [(AOT_VARIANTS[name][0].on(arch), AOT_VARIANTS[name][1]) for name in shipped or AOT_VARIANTS]
            for variant, count in wanted:
                print(write(out, *compile_cubin(variant, variant.launch_params(count, arch), arch)))
    except IprError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
