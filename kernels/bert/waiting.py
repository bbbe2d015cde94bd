"""`wait_for_earlier` stands before a kernel's first load of what an earlier kernel wrote, and before its first store."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents

from ..handshake import wait_for_earlier_kernels


@triton.jit
def wait_for_earlier(PDL: tl.constexpr):
    """Wait until the kernel before this one is complete, then let the next one begin its launch (sm_90 and later).

    Every kernel waits before it ends, so the one before is complete only after all before it are: a buffer that some
    earlier kernel read may be written after this line.
    """
    if PDL:
        wait_for_earlier_kernels()
        gdc_launch_dependents()
