// Full width forms: ASCII as wide as a Chinese character, which East Asian keyboards write. A text means the same
// without them. ipr_engine/encoders/full_width.py says the same.
#pragma once

#include <cstdint>

namespace ipr {

// U+FF01 to U+FF5E, each of an ASCII character from '!' on. U+3000, the space of that width, is white space to every
// reader here as it is.
inline bool is_full_width(uint32_t code) { return code - 0xFF01 <= 0xFF5E - 0xFF01; }

// The ASCII character of a full width form.
inline uint8_t ascii_of(uint32_t full_width) { return static_cast<uint8_t>(full_width - 0xFF01 + '!'); }

}  // namespace ipr
