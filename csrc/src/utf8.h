// UTF-8 in and out, for whoever reads a text's characters.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ipr {

struct Decoded {
  uint32_t code;
  uint32_t bytes;
};

// Of ill-formed UTF-8: some code, never a read past the end.
inline Decoded decode(const uint8_t* from, size_t left) {
  const uint32_t lead = from[0];
  if (lead < 0x80 || left < 2) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (from[1] & 0x3Fu), 2};
  if (left < 3) return {0xFFFD, 1};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (from[1] & 0x3Fu) << 6 | (from[2] & 0x3Fu), 3};
  if (left < 4) return {0xFFFD, 1};
  return {(lead & 0x07) << 18 | (from[1] & 0x3Fu) << 12 | (from[2] & 0x3Fu) << 6 | (from[3] & 0x3Fu), 4};
}

inline uint32_t put_utf8(uint32_t code, char* to) {
  if (code < 0x80) {
    to[0] = static_cast<char>(code);
    return 1;
  }
  if (code < 0x800) {
    to[0] = static_cast<char>(0xC0 | code >> 6);
    to[1] = static_cast<char>(0x80 | (code & 0x3F));
    return 2;
  }
  if (code < 0x10000) {
    to[0] = static_cast<char>(0xE0 | code >> 12);
    to[1] = static_cast<char>(0x80 | (code >> 6 & 0x3F));
    to[2] = static_cast<char>(0x80 | (code & 0x3F));
    return 3;
  }
  to[0] = static_cast<char>(0xF0 | code >> 18);
  to[1] = static_cast<char>(0x80 | (code >> 12 & 0x3F));
  to[2] = static_cast<char>(0x80 | (code >> 6 & 0x3F));
  to[3] = static_cast<char>(0x80 | (code & 0x3F));
  return 4;
}

}  // namespace ipr
