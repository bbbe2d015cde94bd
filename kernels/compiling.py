"""`compile_ahead` compiles a Triton kernel for a named architecture without a GPU."""

from __future__ import annotations

from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import BackendUnavailableError

PURPOSE = "compiling cubins"


def compile_ahead(
    kernel: Any, signature: dict[str, str], constants: dict[str, Any], arch: str, options: dict[str, Any]
) -> Any:
    """Compile a Triton kernel for one architecture; return Triton's compiled kernel.

    Args:
        signature: the type of each argument, in order; every pointer is taken for a multiple of 16, so that a load may take four
            floats, and nothing else is specialised.
        constants, options: compile-time arguments, and Triton's options.
    Raises:
        BackendUnavailableError: triton is missing, or runs its interpreter in this process.
    """
    triton = need("triton", PURPOSE, "gpu")
    if triton.knobs.runtime.interpret:
        raise BackendUnavailableError(
            "compiling cubins: this process runs Triton's interpreter; unset TRITON_INTERPRET and start again"
        )
    compiler = need("triton.compiler", PURPOSE, "gpu")
    triton.knobs.compilation.disable_line_info = True  # two thirds of a cubin, of use to a debugger alone
    backends = need("triton.backends.compiler", PURPOSE, "gpu")
    names = kernel.arg_names
    source = compiler.ASTSource(
        fn=kernel,
        signature={name: signature.get(name, "constexpr") for name in names},
        constexprs=constants,
        attrs={
            (at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if signature.get(name, "").startswith("*")
        },
    )
    target = backends.GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)  # threads a warp
    return triton.compile(source, target=target, options=options)
