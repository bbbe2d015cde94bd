// The words of a surface lexicon by their hashes. Included by surface_features.cpp alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ipr/errors.h"

namespace ipr {
namespace {

// Hash -> category, found by one look. A place holds a hash but for its lowest byte, which is the
// category, 1 and up. Which place is a hash's own depends on what its group was moved by, so that none is taken twice.
// The tables are small, so that they stay near.
class WordTable {
 public:
  explicit WordTable(const std::vector<uint64_t>& words) {
    size_t places = 64;
    while (places < words.size() * 3 / 2) places *= 2;
    for (;; places *= 2) {
      IPR_CHECK(places <= kMostPlaces, "lexicon: expected words whose hashes differ enough to be told apart; got ",
                words.size(), " words that do not fit into ", kMostPlaces, " places: leave out the latest ones");
      // Another part of the hash is as good as another hash.
      for (turn_ = 8; turn_ < 36; ++turn_)
        if (filled(words, places)) return;
    }
  }

  // 0: of no category.
  uint32_t category(uint64_t hash) const {
    const uint64_t place = places_[place_of(hash, moved_[group_of(hash)])];
    return static_cast<uint32_t>((place ^ hash) >> 8 ? 0 : place & 255);
  }

 private:
  static constexpr size_t kMostPlaces = 1 << 16;  // moves are 16 bits wide

  size_t group_of(uint64_t hash) const { return hash >> 48 & mask_ / 2; }
  size_t place_of(uint64_t hash, size_t moved) const { return (hash >> turn_ ^ moved) & mask_; }

  bool filled(const std::vector<uint64_t>& words, size_t places) {
    mask_ = places - 1;
    places_.assign(places, 0);
    moved_.assign(places / 2, 0);
    std::vector<std::vector<uint64_t>> groups(places / 2);
    for (const uint64_t word : words) groups[group_of(word)].push_back(word);
    std::sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
    return std::all_of(groups.begin(), groups.end(), [this](const auto& group) { return put(group); });
  }

  // Whether there is a move that brings a whole group to free places; it is put there.
  bool put(const std::vector<uint64_t>& group) {
    for (size_t moved = 0; moved <= mask_; ++moved) {
      size_t done = 0;
      for (; done < group.size() && places_[place_of(group[done], moved)] == 0; ++done)
        places_[place_of(group[done], moved)] = group[done];
      if (done == group.size()) {
        if (done) moved_[group_of(group[0])] = static_cast<uint16_t>(moved);
        return true;
      }
      while (done) places_[place_of(group[--done], moved)] = 0;
    }
    return false;
  }

  std::vector<uint64_t> places_;
  std::vector<uint16_t> moved_;  // (places / 2)
  uint64_t mask_ = 0;
  uint32_t turn_ = 8;
};

}  // namespace
}  // namespace ipr
