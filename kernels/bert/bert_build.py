"""This module compiles the encoder's kernels ahead for an architecture, without a GPU: what they take of it, and that nothing spills.

    python -m ipr_engine.kernels.bert.bert_build --arch sm_90 --shape 384x32      one JSON line a kernel

Launches compile for themselves; nothing reads these cubins.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError, IprError

from ..build import ARCHITECTURES, read_resources
from ..compiling import compile_ahead
from .bert_forms import OPTIONS, SIGNATURES, BertForms, BertShape
from .bert_tiles import bert_tables

# dim x head: MiniLM, BGE-small and E5-small; BERT-base, BGE-base and E5-base; and what else a dim of theirs can have.
SHAPES = {
    f"{dim}x{head}": BertShape(dim=dim, head=head, wide=4 * dim, activation="gelu", eps=1e-12)
    for dim, head in ((384, 32), (768, 64), (384, 64), (768, 32))
}


def built(shape: BertShape, arch: str, tables: Sequence[str] = ("few", "some", "many")) -> Iterator[dict[str, Any]]:
    """Yield what each kernel of a shape takes on an architecture, table by table: registers, shared memory, stack, local memory.

    Raises:
        BackendUnavailableError: triton is missing, or runs its interpreter in this process.
        InvalidInputError: an unknown architecture.
    """
    if arch not in ARCHITECTURES:
        raise InvalidInputError(f"arch: expected one of {', '.join(ARCHITECTURES)}, got {arch!r}")
    found = bert_tables(arch, shape.head)
    for table in tables:
        forms = BertForms(shape, found[table], pdl=int(arch.removeprefix("sm_")) >= 90)
        for name, (kernel, form) in forms.all().items():
            yield {"kernel": name, "rows": table, **_resources(kernel, form, arch)}


def _resources(kernel: str, form: dict[str, Any], arch: str) -> dict[str, Any]:
    options = {name: form[name] for name in OPTIONS if name in form}
    constants = {name: value for name, value in form.items() if name not in OPTIONS}
    fn = _kernels()[kernel]
    signature = dict(zip([name for name in fn.arg_names if name not in constants], SIGNATURES[kernel], strict=True))
    compiled = compile_ahead(fn, signature, constants, arch, options)
    return {
        "threads": 32 * options["num_warps"], **read_resources(compiled.asm["cubin"]),
        "shared_bytes": compiled.metadata.shared, "cubin_bytes": len(compiled.asm["cubin"]),
    }  # fmt: skip


def _kernels() -> dict[str, Any]:
    need("triton", "compiling the encoder", "gpu")
    from . import attention, embedding, linear

    return {
        "embed": embedding.embed, "attend": attention.attend, "project": linear.project, "expand": linear.expand,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ipr_engine.kernels.bert.bert_build", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--arch", action="append", required=True, choices=ARCHITECTURES)
    parser.add_argument("--shape", action="append", choices=sorted(SHAPES), help="default: all")
    parsed = parser.parse_args(arguments)
    try:
        for name in parsed.shape or SHAPES:
            for arch in parsed.arch:
                for line in built(SHAPES[name], arch):
                    print(json.dumps({"shape": name, "arch": arch, **line}), flush=True)
    except IprError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
