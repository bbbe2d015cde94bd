"""`embed` turns ids into token states, and brings the request from the host's memory to the device on its way."""

import triton
import triton.language as tl

from .waiting import wait_for_earlier


@triton.jit(do_not_specialize=["tokens", "vocabulary", "size"])
def embed(
    ids, words, places, y, source, target, tokens, vocabulary, size,
    DIM: tl.constexpr, BLOCK: tl.constexpr, BLOCK_COPY: tl.constexpr, COPY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """y = words[id] + places[position], one token a program; with COPY also target = source, `size` int32.

    ids (count,) int32 may lie in source, in mapped host memory. words (vocabulary, DIM); places (tokens or more, DIM) float32
    holds position plus type. y (count, DIM) is the sum before LayerNorm.
    """
    at, cols = tl.program_id(0), tl.arange(0, BLOCK)
    wait_for_earlier(PDL)
    word = tl.load(ids + at)
    if COPY:  # in the time in which the id comes over the bus
        some = tl.arange(0, BLOCK_COPY)
        for c in range(at * BLOCK_COPY, size, tl.num_programs(0) * BLOCK_COPY):
            tl.store(target + c + some, tl.load(source + c + some, mask=c + some < size, other=0), mask=c + some < size)
    # rows of a bucket that nobody filled hold anything; their states are of no use, and must not be read elsewhere
    word = tl.minimum(tl.maximum(word, 0), vocabulary - 1)
    place = tl.load(places + (at % tokens) * DIM + cols, mask=cols < DIM, other=0.0)
    a = tl.load(words + word * DIM + cols, mask=cols < DIM, other=0.0).to(tl.float32) + place
    tl.store(y + at * DIM + cols, a.to(y.dtype.element_ty), mask=cols < DIM)
