#include "vocabulary.h"

#include <algorithm>

#include "ipr/errors.h"

namespace ipr {

Vocabulary::Vocabulary(std::vector<std::pair<std::string, uint32_t>> tokens, const std::string& continuing_prefix) {
  std::sort(tokens.begin(), tokens.end());
  for (size_t k = 1; k < tokens.size(); ++k) {
    IPR_CHECK(tokens[k].first != tokens[k - 1].first, "vocab: the token '", tokens[k].first, "' stands in it twice");
  }
  fill_slots(tokens);
  fill_nodes(tokens);
  continuing_ = 0;
  for (const char byte : continuing_prefix) {
    const int32_t next = nodes_[continuing_].base + static_cast<unsigned char>(byte);
    continuing_ = nodes_[next].parent == continuing_ ? next : -1;
    if (continuing_ < 0) break;
  }
}

void Vocabulary::fill_slots(const std::vector<std::pair<std::string, uint32_t>>& tokens) {
  int bits = 4;
  while ((size_t{1} << bits) < 2 * tokens.size()) ++bits;  // at most half full: a search ends in the same cache line
  shift_ = 64 - bits;
  mask_ = (size_t{1} << bits) - 1;
  slots_.assign(mask_ + 1, Slot{0, kNone, 0});
  pool_.assign(kPoolStart, 0);
  for (const auto& [token, id] : tokens) {
    if (token.empty()) continue;  // never looked up
    const size_t bytes = token.size();
    const std::string padded = token + std::string(kPadding, '\0');
    uint32_t tail = static_cast<uint32_t>(bytes);
    if (bytes > 8) {
      IPR_CHECK(pool_.size() + bytes + 4 < UINT32_MAX, "vocab: expected below 4 GiB of tokens");
      pool_.insert(pool_.end(), reinterpret_cast<const char*>(&tail), reinterpret_cast<const char*>(&tail) + 4);
      tail = static_cast<uint32_t>(pool_.size());
      pool_.insert(pool_.end(), token.begin(), token.end());
    }
    const uint64_t key = bytes <= 8 ? load(padded.data(), bytes) : hash_long(padded.data(), bytes);
    size_t at = mix(key) >> shift_;
    while (slots_[at].tail != 0) at = (at + 1) & mask_;
    slots_[at] = Slot{key, id, tail};
  }
}

// First fit: each node takes the lowest base at which all its children's places are free. Nodes of several children
// look only at the last kSearched places before the furthest one found, which keeps the work linear; nodes of one child
// fill the gaps.
void Vocabulary::fill_nodes(const std::vector<std::pair<std::string, uint32_t>>& sorted) {
  constexpr int32_t kFree = -1;
  constexpr size_t kSearched = 256;
  nodes_.assign(1024, Node{0, kFree, kNone});
  nodes_[0].parent = kFree - 1;  // taken, and no node's child
  size_t first_free = 257;       // no free place lies below; from 257 on any byte can go first, and base > 0
  size_t search_from = 257;      // for nodes of several children

  struct Todo {
    int32_t node;
    size_t begin, end, depth;  // the tokens that pass through the node, and its depth in bytes
  };
  std::vector<Todo> todo{{0, 0, sorted.size(), 0}};
  std::vector<std::pair<unsigned char, size_t>> children;  // byte, first token
  while (!todo.empty()) {
    auto [node, begin, end, depth] = todo.back();
    todo.pop_back();
    if (begin < end && sorted[begin].first.size() == depth) {
      nodes_[node].id = depth == 0 ? kNone : sorted[begin].second;
      ++begin;
    }
    children.clear();
    for (size_t at = begin; at < end; ++at) {
      const auto byte = static_cast<unsigned char>(sorted[at].first[depth]);
      if (children.empty() || children.back().first != byte) children.push_back({byte, at});
    }
    if (children.empty()) continue;

    while (nodes_[first_free].parent != kFree) {
      if (++first_free + 512 > nodes_.size()) nodes_.resize(2 * nodes_.size(), Node{0, kFree, kNone});
    }
    const size_t lowest = children.front().first;
    const bool only_child = children.size() == 1;
    size_t place = only_child ? first_free : std::max(first_free, search_from);
    for (;; ++place) {
      if (place + 512 > nodes_.size()) nodes_.resize(2 * nodes_.size(), Node{0, kFree, kNone});
      if (nodes_[place].parent != kFree) continue;
      const bool fits = std::all_of(children.begin(), children.end(), [&](const auto& child) {
        return nodes_[place - lowest + child.first].parent == kFree;
      });
      if (fits) break;
    }
    if (!only_child && place > search_from + kSearched) search_from = place - kSearched;
    IPR_CHECK(place < INT32_MAX - 512, "vocab: too many tokens");

    const auto base = static_cast<int32_t>(place - lowest);
    nodes_[node].base = base;
    for (size_t k = 0; k < children.size(); ++k) {
      const int32_t child = base + children[k].first;
      nodes_[child].parent = node;
      todo.push_back({child, children[k].second, k + 1 < children.size() ? children[k + 1].second : end, depth + 1});
    }
  }
  // Every lookup base + byte stays inside.
  size_t used = nodes_.size();
  while (nodes_[used - 1].parent == kFree) --used;
  nodes_.resize(used + 256, Node{0, kFree, kNone});
  nodes_.shrink_to_fit();
}

}  // namespace ipr
