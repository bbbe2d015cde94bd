// IPR_UNROLL(8) in front of a loop: unroll it whole, up to 8 rounds. Arrays of registers depend on it: an array that is
// indexed by a loop variable lives in memory, one indexed by constants in registers.
#pragma once

#define IPR_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define IPR_UNROLL(rounds) IPR_PRAGMA(unroll rounds)
#else
#define IPR_UNROLL(rounds) IPR_PRAGMA(GCC unroll rounds)
#endif
