"""The two ends of a launch: it waits for the kernels before it, and tells the host that everything is stored.

Inline assembly says both, which Triton's interpreter does not run: there one program runs after another, and a plain store tells.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def wait_for_earlier_kernels():
    """Wait until the kernel before has ended and what it wrote can be read: a launch with PDL begins before that."""
    if not INTERPRETED:
        gdc_wait()


@triton.jit
def tell_host(done, number, arrivals, programs):
    """Store `number` in `done`, after everything that the `programs` programs which call this have stored.

    A host that reads it with acquire semantics sees all of that. arrivals: one word, 0, and 0 again afterwards.
    """
    tl.debug_barrier()  # all threads of the program have stored
    arrived = 0
    if programs > 1:
        # The GPU's scope is enough between programs: the release below covers what its thread has seen through this one.
        arrived = tl.atomic_add(arrivals, 1, sem="acq_rel", scope="gpu")
    if arrived == programs - 1:
        tl.store(arrivals, 0)  # for the next launch
        if INTERPRETED:
            tl.store(done, number)
        else:
            # A release store at the system's scope is the least that orders all of that before `done` for the host. An
            # atomic on the host's memory would also read it over PCIe, and not every host completes those.
            tl.inline_asm_elementwise(
                """{
                    .reg .pred first;
                    .reg .b32 thread;
                    mov.u32 thread, %tid.x;
                    setp.eq.u32 first, thread, 0;
                    @first st.release.sys.global.b32 [$1], $2;
                    mov.b32 $0, $2;
                }""",
                "=r,l,r,~{memory}", [done, number], dtype=tl.int32, is_pure=False, pack=1,
            )  # fmt: skip
