#include "ipr/surface_features.h"

#include <algorithm>
#include <cstring>

#include "ipr/errors.h"
#include "surface_counts.h"
#include "word_table.h"

namespace ipr {
namespace {

constexpr size_t kMostCategories = 64, kMostWords = 1024;
constexpr size_t kMostCounts = kCounts + 1 + 3 * kMostCategories;
constexpr size_t kBefore = 16,
                 kAfter = 80;  // around the symbols: what reads a block or a word may begin early, end late
constexpr size_t kScratchKept = 1 << 16;
constexpr size_t kMostBytes = 0xFFFF0000;  // places are 32 bits wide
constexpr uint32_t kMostCounted = 1 << 24;
constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
constexpr uint32_t kLongRun = 8;  // columns from which a loop over vectors pays
constexpr size_t kMostRun = kCounts + 2 * kMostCategories;
constexpr size_t kSegment = 4096;  // symbols whose words are found at a time

inline uint64_t step(uint64_t hash, uint64_t eight) {
  hash = (hash ^ eight) * kMultiplier;
  return hash ^ hash >> 32;
}

inline uint64_t load_eight(const uint8_t* from) {
  uint64_t value;
  std::memcpy(&value, from, 8);
  return value;
}

inline uint64_t low_bytes(size_t count) { return count >= 8 ? ~0ull : (1ull << 8 * count) - 1; }

bool in_word(uint8_t symbol) { return within(symbol, 'a', 'z') || within(symbol, '0', '9') || symbol >= 0x80; }

uint64_t word_hash(const uint8_t* word, size_t size) {
  uint64_t hash = 0;
  for (; size > 8; size -= 8, word += 8) hash = step(hash, load_eight(word));
  return step(hash, load_eight(word) & low_bytes(size));
}

const SymbolTable& symbol_table() {
  static const SymbolTable table;
  return table;
}

const CharClasses& char_classes() {
  static const CharClasses classes;
  return classes;
}

// A word of the lexicon as its hash and, in the lowest byte, its category.
uint64_t lexicon_word(const std::string& word, size_t category) {
  std::vector<uint8_t> symbols(word.size() + 16 + 8, kSpace);
  uint32_t letters[kClasses]{};
  const auto* from = reinterpret_cast<const uint8_t*>(word.data());
  const uint8_t* end = put_symbols(char_classes(), from, word.size(), symbols.data(), letters);
  const auto size = static_cast<size_t>(end - symbols.data());
  IPR_CHECK(size > 0 && std::all_of(symbols.data(), symbols.data() + size, in_word),
            "lexicon: expected words of letters and digits, of scripts with spaces between words; got '", word, "'");
  return (word_hash(symbols.data(), size) & ~255ull) | category;
}

// Columns side by side of counts side by side: count / (count & own + half * counts[of]); 0 / 0 is 0.
struct Run {
  uint32_t column, count, size, own, half, of;

  void divide(const uint32_t* counts, float* x) const {
    const auto base = static_cast<int32_t>(half * counts[of]), kept = static_cast<int32_t>(own);
    int32_t above[kMostRun];
    std::memcpy(above, counts + count, size * sizeof(int32_t));
    float* const to = x + column;
    for (uint32_t k = 0, end = size; k < end; ++k) {
      const int32_t below = (above[k] & kept) + base;
      to[k] = static_cast<float>(above[k]) / static_cast<float>(below + (below == 0));
    }
  }

  // The same of a run of one column.
  void divide_first(const uint32_t* counts, float* x) const {
    const auto above = static_cast<int32_t>(counts[count]);
    const auto below = static_cast<int32_t>((counts[count] & own) + half * counts[of]);
    x[column] = static_cast<float>(above) / static_cast<float>(below + (below == 0));
  }
};

// Where the symbols of this thread's text are written.
uint8_t* scratch_of(std::vector<uint8_t>& scratch, size_t bytes) {
  if (scratch.size() < bytes + kBefore + kAfter) scratch.resize(bytes + kBefore + kAfter);
  std::memset(scratch.data(), kSpace, kBefore);
  return scratch.data() + kBefore;
}

}  // namespace

struct SurfaceFeatures::Planned {
  WordTable words;
  size_t categories, flags;
  std::vector<uint8_t> flag_of;   // (1 + categories): 1 and up where the category is a flag
  std::vector<Run> runs, single;  // those of at least kLongRun columns; the columns of others, one by one
  size_t dim = 0;
  const CharClasses& classes;
  const SymbolTable& symbols;

  explicit Planned(const SurfaceLexicon& lexicon)
      : words(hashes_of(lexicon)),
        categories(lexicon.categories.size()),
        flags(lexicon.flags.size()),
        flag_of(1 + categories, 0),
        classes(char_classes()),
        symbols(symbol_table()) {
    for (size_t flag = 0; flag < flags; ++flag) {
      IPR_CHECK(lexicon.flags[flag] < categories, "lexicon: expected flags below ", categories, ", got ",
                lexicon.flags[flag]);
      uint8_t& own = flag_of[1 + lexicon.flags[flag]];
      IPR_CHECK(own == 0, "lexicon: expected each flag once, got ", lexicon.flags[flag], " twice");
      own = static_cast<uint8_t>(1 + flag);
    }
    for (const Column& column : kColumns) add(column.count, 1, column);
    add(of_category(1), categories, {0, 1, 2, kOne});
    add(of_category(1), categories, {0, 0, 1, kWords});
    add(first_flag(), 2 * flags, {0, 0, 1, kOne});
    part_runs();
  }

  // Adds columns of `count` counts from `first` on, to the last run where they go on with it.
  void add(size_t first, size_t count, const Column& form) {
    const uint32_t own = form.own ? UINT32_MAX : 0;
    Run next{static_cast<uint32_t>(dim),
             static_cast<uint32_t>(first),
             static_cast<uint32_t>(count),
             own,
             form.half,
             form.of};
    dim += count;
    if (!runs.empty()) {
      Run& last = runs.back();
      if (last.count + last.size == next.count && last.own == own && last.half == next.half && last.of == next.of) {
        last.size += next.size;
        return;
      }
    }
    runs.push_back(next);
  }

  void part_runs() {
    std::vector<Run> all;
    all.swap(runs);
    for (Run run : all) {
      if (run.size >= kLongRun) {
        runs.push_back(run);
        continue;
      }
      for (; run.size; --run.size, ++run.column, ++run.count) single.push_back(run);
    }
  }

  static std::vector<uint64_t> hashes_of(const SurfaceLexicon& lexicon) {
    IPR_CHECK(lexicon.categories.size() <= kMostCategories, "lexicon: expected at most ", kMostCategories,
              " categories, got ", lexicon.categories.size());
    std::vector<uint64_t> hashes;
    for (size_t category = 0; category < lexicon.categories.size(); ++category)
      for (const std::string& word : lexicon.categories[category]) hashes.push_back(lexicon_word(word, category + 1));
    IPR_CHECK(hashes.size() <= kMostWords, "lexicon: expected at most ", kMostWords, " words, got ", hashes.size());
    std::vector<uint64_t> sorted = hashes;
    std::sort(sorted.begin(), sorted.end());
    const auto same = [](uint64_t a, uint64_t b) { return a >> 8 == b >> 8; };
    IPR_CHECK(std::adjacent_find(sorted.begin(), sorted.end(), same) == sorted.end(),
              "lexicon: expected each word once, whatever its case");
    return hashes;
  }

  // Places of the lexicon's counts, after those of every text; words of no category are counted at of_category(0).
  static size_t of_category(size_t category) { return kCounts + category; }
  size_t first_flag() const { return kCounts + 1 + categories; }
};

namespace {

// The words of a text, as they are found, one after the other.
struct WordReader {
  const WordTable& table;
  const uint8_t* flag_of;
  uint32_t* counts;

  uint64_t seen[4]{};  // a bit for each highest byte of a word's hash
  uint32_t tokens = 0, longest = 0, long_words = 0, numbers = 0, long_numbers = 0, years = 0, most_digits = 0,
           mixed = 0;
  uint32_t last_flag = 0;

  void read(const uint8_t* word, uint32_t size) {
    const uint64_t kept = low_bytes(size), eight = load_eight(word) & kept;
    uint64_t hash = step(0, eight), digits = digits_of(eight) & kept;
    for (uint32_t at = 8; at < size; at += 8) {
      const uint64_t own = low_bytes(size - at), more = load_eight(word + at) & own;
      hash = step(hash, more);
      digits |= digits_of(more) & own;
    }
    ++tokens;
    longest = std::max(longest, size);
    long_words += size >= 8;
    seen[hash >> 62] |= 1ull << (hash >> 56 & 63);
    const uint32_t category = table.category(hash);
    ++counts[kCounts + category];
    const uint32_t flag = flag_of[category];
    last_flag = flag ? flag : last_flag;
    if (digits) read_digits(word, size);
  }

  void put_counts() const {
    counts[kTokens] = tokens;
    counts[kLongestWord] = longest;
    counts[kLongWords] = long_words;
    counts[kDistinctWords] = distinct();
    counts[kNumbers] = numbers;
    counts[kMixedWords] = mixed;
    counts[kLongNumbers] = long_numbers;
    counts[kYears] = years;
    counts[kMostDigits] = most_digits;
  }

 private:
  static constexpr uint64_t kHighBits = 0x8080808080808080u;

  // The high bit of each byte of a word that is a digit: letters have bit 6 or bit 7.
  static uint64_t digits_of(uint64_t eight) { return ~(eight | eight << 1) & kHighBits; }

  uint32_t distinct() const {
    uint32_t sum = 0;
    for (const uint64_t part : seen) sum += bit_count(part);
    return sum;
  }

  void read_digits(const uint8_t* word, uint32_t size) {
    const bool numeric = std::all_of(word, word + size, [](uint8_t symbol) { return within(symbol, '0', '9'); });
    mixed += !numeric;
    if (!numeric) return;
    ++numbers;
    long_numbers += size >= 3;
    years += size == 4 && (word[0] == '1' || word[0] == '2');
    most_digits = std::max(most_digits, size);
  }
};

// Counts words and punctuation between begin and end; returns the flag of the last word that has one.
uint32_t count_symbols(const SymbolTable& table, const uint8_t* begin, const uint8_t* end, WordReader words,
                       uint32_t* counts) {
  uint32_t edges[kSegment + 1];  // where words begin and end, in turn
  uint32_t found = 0;            // how many; a word may begin in one segment and end in the next
  uint64_t before = 0;           // whether the symbol before the block is in a word
  uint32_t characters = 0, in_words = 0, digits = 0, punctuation = 0;
  for (const uint8_t* segment = begin; segment < end; segment += kSegment) {
    const uint8_t* stop = segment + std::min<size_t>(kSegment, static_cast<size_t>(end - segment));
    for (const uint8_t* at = segment; at < stop; at += 64) {
      const Block block = block_of(at);
      const auto place = static_cast<uint32_t>(at - begin);
      for (uint64_t left = block.words ^ (block.words << 1 | before); left; left &= left - 1)
        edges[found++] = place + first_bit(left);
      before = block.words >> 63;
      characters += bit_count(~(block.spaces | block.quotes));
      in_words += bit_count(block.words);
      digits += bit_count(block.numbers);
      uint64_t odd = ~(block.words | block.spaces | block.quotes | block.unspaced);
      punctuation += bit_count(odd);
      for (; odd; odd &= odd - 1) {
        const uint8_t* symbol = at + first_bit(odd);
        const size_t own = table.place[symbol[0]], next = table.place[symbol[1]];
        const size_t kind_before = symbol[-1] == symbol[0] ? uint8_t{kAtSame} : table.kind[symbol[-1]];
        const size_t kind_after = symbol[1] == symbol[0] ? uint8_t{kAtSame} : table.kind[symbol[1]];
        ++counts[kAlone[own]];
        ++counts[kContexts[25 * own + 5 * kind_before + kind_after]];
        ++counts[kPairs[(kSymbolCount + 1) * own + next]];
      }
    }
    for (uint32_t k = 1; k < found; k += 2) words.read(begin + edges[k - 1], edges[k] - edges[k - 1]);
    // At most one word goes on.
    if (found % 2) edges[0] = edges[found - 1];
    found %= 2;
  }
  if (found) words.read(begin + edges[0], static_cast<uint32_t>(end - begin) - edges[0]);
  counts[kCharacters] = characters;
  counts[kTokenCharacters] = in_words;
  counts[kDigits] = digits;
  counts[kSymbols] = punctuation;
  words.put_counts();
  return words.last_flag;
}

uint32_t category_of_first(const WordTable& words, const uint8_t* begin) {
  while (!in_word(*begin)) ++begin;
  const uint8_t* end = begin;
  while (in_word(*end)) ++end;
  return words.category(word_hash(begin, static_cast<size_t>(end - begin)));
}

void count_ends(const SymbolTable& table, const uint8_t* begin, const uint8_t* end, uint32_t* counts) {
  const auto skipped = [](uint8_t symbol) { return symbol == kSpace || symbol == kQuote; };
  while (begin < end && skipped(*begin)) ++begin;
  while (begin < end && skipped(end[-1])) --end;
  if (begin == end) return;
  const uint8_t last = end[-1];
  counts[kEndsAsking] = last == '?';
  counts[kEndsOpen] = last == ':';
  counts[kEndsStopped] = last == '.' || last == '!' || last == kSymbolOfClass[kClassStop];
  counts[kStartsOdd] = table.kind[*begin] == kAtOther;
}

}  // namespace

SurfaceFeatures::SurfaceFeatures(const SurfaceLexicon& lexicon) : planned_(std::make_unique<Planned>(lexicon)) {}
SurfaceFeatures::SurfaceFeatures(SurfaceFeatures&&) noexcept = default;
SurfaceFeatures::~SurfaceFeatures() = default;

size_t SurfaceFeatures::dim() const { return planned_->dim; }

void SurfaceFeatures::write(const char* utf8, size_t bytes, float* x) const {
  const Planned& planned = *planned_;
  thread_local std::vector<uint8_t> scratch;
  bytes = std::min(bytes, kMostBytes);
  uint8_t* const begin = scratch_of(scratch, bytes);
  uint32_t letters[kClasses]{};
  uint8_t* const end = put_symbols(planned.classes, reinterpret_cast<const uint8_t*>(utf8), bytes, begin, letters);
  std::memset(end, kSpace, kAfter);
  blank_fences(begin, end);
  const Markers markers = take_markers(begin, end);

  uint32_t counts[kMostCounts];
  const size_t used = planned.first_flag() + 2 * planned.flags;
  std::fill_n(counts, used, 0);
  const uint32_t last_flag =
      count_symbols(planned.symbols, begin, end, {planned.words, planned.flag_of.data(), counts}, counts);
  count_ends(planned.symbols, begin, end, counts);
  uint32_t spaced = 0, unspaced = 0;
  for (size_t of = kClassLatin; of < kClassSoutheastAsian; ++of) spaced += letters[of];
  for (size_t of = kClassSoutheastAsian; of < kClasses; ++of) unspaced += letters[of];
  for (size_t of = kClassLatin; of < kClasses; ++of) counts[kLatin + (of - kClassLatin)] = letters[of];
  counts[kOne] = 1;
  counts[kAsciiLetters] = counts[kTokenCharacters] - counts[kDigits] - spaced;
  counts[kLetters] = counts[kAsciiLetters] + spaced + unspaced;
  counts[kWords] =
      counts[kTokens] + (letters[kClassKana] + letters[kClassHan] + 1) / 2 + (letters[kClassSoutheastAsian] + 4) / 5;
  counts[kSentences] = counts[kCharacters] ? std::max(counts[kStops], 1u) : 0;
  counts[kLetterMarkers] = markers.letters;
  counts[kNumberMarkers] = markers.numbers;
  counts[kMarkerGaps] = std::max(markers.letters, 1u) - 1;
  counts[kGapCharacters] = markers.last - markers.first;
  counts[kStemCharacters] = markers.first;
  counts[kNumericMarkers] = markers.numeric;
  const size_t first_flag = planned.first_flag(), flags = planned.flags;
  const uint32_t first = counts[kTokens] ? planned.flag_of[category_of_first(planned.words, begin)] : 0;
  if (first) counts[first_flag + first - 1] = 1;
  if (last_flag) counts[first_flag + flags + last_flag - 1] = 1;

  if (bytes > kMostCounted)  // no count is above the bytes
    for (size_t k = 0; k < used; ++k) counts[k] = std::min(counts[k], kMostCounted);
  // These first: a vector waits for what was counted just before, one number at a time.
  for (const Run& one : planned.single) one.divide_first(counts, x);
  for (const Run& run : planned.runs) run.divide(counts, x);
  if (scratch.size() > kScratchKept + kBefore + kAfter) std::vector<uint8_t>().swap(scratch);
}

}  // namespace ipr
