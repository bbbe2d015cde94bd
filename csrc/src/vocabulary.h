// The vocabulary of WordPiece: whole words by hash, pieces by a double-array trie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace ipr {

class Vocabulary {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  // find() and pieces() read up to this many bytes past the end of a word.
  static constexpr size_t kPadding = 8;

  Vocabulary(std::vector<std::pair<std::string, uint32_t>> tokens, const std::string& continuing_prefix);

  // The id of a whole word, or kNone.
  uint32_t find(const char* word, size_t bytes) const {
    const uint64_t key = bytes <= 8 ? load(word, bytes) : hash_long(word, bytes);
    for (size_t at = mix(key) >> shift_;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.key == key && (bytes <= 8 ? slot.tail == bytes : same_long(slot.tail, word, bytes))) return slot.id;
      if (slot.tail == 0) return kNone;
    }
  }

  // Longest match first: writes the pieces of a word to out (room for `bytes` ids) and returns how many; 0 if it has
  // none.
  size_t pieces(const char* word, size_t bytes, uint32_t* out) const {
    size_t count = 0;
    int32_t start = 0;  // the root; after the first piece the node of the continuing prefix
    for (size_t begin = 0; begin < bytes; start = continuing_) {
      if (start < 0) return 0;
      uint32_t id = kNone;
      size_t end = begin;
      int32_t node = start;
      for (size_t at = begin; at < bytes; ++at) {
        const int32_t next = nodes_[node].base + static_cast<unsigned char>(word[at]);
        if (nodes_[next].parent != node) break;
        node = next;
        if (nodes_[node].id != kNone) {
          id = nodes_[node].id;
          end = at + 1;
        }
      }
      if (id == kNone) return 0;
      out[count++] = id;
      begin = end;
    }
    return count;
  }

 private:
  // A word of up to 8 bytes is its own key, and tail is its length. For a longer one the key is a hash, and tail points
  // into pool_, behind a 4-byte length; pool_ starts with kPoolStart unused bytes, so the two kinds differ. tail = 0:
  // empty.
  struct Slot {
    uint64_t key;
    uint32_t id;
    uint32_t tail;
  };
  static constexpr uint32_t kPoolStart = 16;

  // A child of a node by byte b is nodes_[base + b], if its parent is that node.
  struct Node {
    int32_t base;
    int32_t parent;
    uint32_t id;
  };

  static uint64_t load(const char* from, size_t bytes) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte of a word is the lowest of its key");
    uint64_t value;
    std::memcpy(&value, from, 8);
    return bytes >= 8 ? value : value & ((uint64_t{1} << (8 * bytes)) - 1);
  }
  static uint64_t mix(uint64_t key) {
    const unsigned __int128 product = static_cast<unsigned __int128>(key ^ 0x9e3779b97f4a7c15u) * 0xd6e8feb86659fd93u;
    return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
  }
  static uint64_t hash_long(const char* word, size_t bytes) {
    uint64_t hash = bytes;
    for (; bytes > 8; word += 8, bytes -= 8) hash = mix(hash ^ load(word, 8));
    return mix(hash ^ load(word, bytes));
  }
  bool same_long(uint32_t tail, const char* word, size_t bytes) const {
    if (tail < kPoolStart) return false;
    uint32_t length;
    std::memcpy(&length, &pool_[tail - 4], 4);
    return length == bytes && std::memcmp(&pool_[tail], word, bytes) == 0;
  }

  void fill_slots(const std::vector<std::pair<std::string, uint32_t>>& tokens);
  void fill_nodes(const std::vector<std::pair<std::string, uint32_t>>& sorted);

  std::vector<Slot> slots_;
  std::vector<char> pool_;
  std::vector<Node> nodes_;
  int shift_ = 0;
  size_t mask_ = 0;
  int32_t continuing_ = -1;  // the node of the continuing prefix, -1 if no token starts with it
};

}  // namespace ipr
