// StaticEncoder: prompt -> embedding, the mean of the table rows of its tokens (docs/decide.md).
//
//   StaticEncoder encoder(std::move(config));                // throws InvalidInput
//   EncodeInfo info = encoder.encode(utf8, bytes, x);        // allocates nothing after a thread's first calls
//
// A prompt is tokenized; its unknown tokens are dropped; where more than max_tokens are left, the middle is cut out,
// between words where that is possible: half of max_tokens (the head rounded up) stay at each end. x is the mean of the
// rows of the tokens that are left, each multiplied by the token's weight, and, where asked for, x / (||x|| + 1e-32).
// The sum of weights is not divided by: the mean is over the number of tokens. Without a known token the mean is 0.
// Where the config has a head view, a second mean stands behind the first: that of the prompt's first head_tokens known
// tokens, taken before anything is cut and scaled as the first is. Where the config has task columns, they stand behind
// the means, 0 each: a text does not tell its task. Where the config has surface features, these come last, of the
// whole text whatever was cut.
//
// Of a conversation, several turns of the user, encode_turns tells one turn from the other, where encode reads them as
// the one text that a caller made of them (Conversation). The table is read in place, so it may be a file that is
// mapped into memory. Billing and embedding see different tokens: EncodeInfo::tokens counts all of the text, before
// anything is dropped or cut, since an LLM reads all of it.
//
// Numbers: float32. Every sum starts at +0 and takes the rows in their order, by fused multiply-add with the row's
// weight; the norm's sum of squares keeps 16 partial sums. Every instruction set gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ipr/surface_features.h"
#include "ipr/wordpiece.h"

namespace ipr {

// The functions of one instruction set; src/simd/kernel_table.h defines it. An encoder asks for them once, when it is
// made.
struct Kernels;

// What the elements of a table are. The gather of an instruction set has a form for each (src/simd/gather_kernel.h);
// values are widened to float32 as they are read, exactly.
enum class TableType : uint8_t { kFloat32, kFloat16, kInt8 };

// The most task columns of an encoder.
constexpr size_t kMostTaskColumns = 256;

// A table of embeddings, (rows, dim) in C order, little-endian. It is borrowed: it must live as long as its encoder.
struct StaticTable {
  const void* data = nullptr;
  TableType type = TableType::kFloat32;
  size_t rows = 0, dim = 0;
};

// UTF-8 texts, each as WordPiece wants it.
struct Texts {
  // (count): where each text begins, and how many bytes it has. A text is read in place and never copied whole.
  const char* const* utf8;
  const size_t* bytes;
  int64_t count;
};

// What of a conversation is encoded: all turns of the user as one text; the last one that has a token; or every turn
// alone, each mean weighing kFading of the next one's.
enum class Conversation : uint8_t { kAll, kLast, kRecency };

// A power of two, so that a weight and its product are exact.
constexpr float kFading = 0.5f;

// The most turns that are weighed, newest first: what older ones weigh together is below 2^-16 of the whole.
constexpr int64_t kMostFadingTurns = 16;

// What an encoder is made of. The encoder takes all of it over and checks it once, so that a prompt is encoded without
// a check of its ids.
struct StaticEncoderConfig {
  // At least one column, and below 2^31 rows.
  StaticTable table;

  // (tokens): the row of each token id, below table.rows. Empty: a token's id is its row.
  std::vector<uint32_t> mapping;

  // (tokens): what each token's row is multiplied by. Empty: 1 each.
  std::vector<float> weights;

  // Null: only encode_ids works. Its ids must be below token_count().
  std::shared_ptr<const WordPiece> tokenizer;

  // The id that is dropped, below token_count(); -1: none. With a tokenizer it is the tokenizer's, whatever stands
  // here.
  int64_t unk_id = -1;

  // The most known tokens in a mean, at least 1; what a longer prompt loses stands above.
  size_t max_tokens = 512;

  // How many known tokens of a prompt's beginning have a mean of their own, behind that of the whole; 0: none.
  size_t head_tokens = 0;

  // Whether each mean is scaled to length 1; dot products with it are then cosines.
  bool normalize = true;

  // "auto", or a name of available_isas() (ipr/isa.h).
  std::string isa = "auto";

  // How many columns of 0 stand in x behind the means, for whoever knows a prompt's task to mark.
  size_t task_columns = 0;

  // Features of a prompt's text that stand last in x (ipr/surface_features.h), not scaled by `normalize`.
  // Null: none.
  std::shared_ptr<const SurfaceFeatures> surface;
};

// What is told of a prompt beside its embedding: its tokens before and after unknown ones were dropped and the middle
// was cut.
struct EncodeInfo {
  // Tokens of the whole text, unknown ones included: what a request is billed by.
  size_t tokens;

  // Known tokens that are in the mean.
  size_t kept;

  // Whether there were more than max_tokens known tokens, so that the middle was cut out.
  bool truncated;
};

// Immutable: every method may be called from many threads at once. A thread keeps scratch for its texts, of bounded
// size.
class StaticEncoder {
 public:
  // Throws InvalidInput, naming the field, for a config that does not fit together; BackendUnavailable for an
  // instruction set that this machine lacks.
  explicit StaticEncoder(StaticEncoderConfig config);

  // Writes x (dim). utf8 as WordPiece wants it; has_tokenizer() must be true, which is not checked. Time is linear in
  // the bytes, and in the tokens times dim.
  EncodeInfo encode(const char* utf8, size_t bytes, float* x) const;

  // Writes x (dim) of the turns of a conversation, oldest first, at least one; kAll is the caller's to join. EncodeInfo
  // counts the tokens of all turns, and of those that are in the mean it tells how many are kept and whether any was
  // cut. kLast: x of the newest turn that has a token. kRecency: the mean over the newest kMostFadingTurns turns that
  // have a known token of what each one's first mean is alone, the newest weighing 1 and each other one kFading of the
  // next, summed in that order, divided by the sum of weights and scaled to length 1 where the config asks for it; the
  // head view and surface features are those of the newest turn that has a token. x of one such turn is x of its text,
  // bit by bit.
  EncodeInfo encode_turns(const Texts& turns, Conversation what, float* x) const;

  // The second half of kRecency: x (table_dim()) of `means` (count, table_dim()), newest first, count at most
  // kMostFadingTurns. For callers that tokenize by other means.
  void fade(const float* means, int64_t count, float* x) const;

  // encode from ids below token_count(), each word's first one with kWordStart; that is not checked. For callers that
  // tokenize by other means. Writes the means alone, embedding_dim() floats: ids do not tell what the text looks like.
  EncodeInfo encode_ids(const uint32_t* ids, size_t count, float* x) const;

  // Columns of x; those of them that are means of rows; those of one mean; the config's own max_tokens; the config's
  // tokenizer, null where there is none, and whether there is one, so that encode may be called.
  size_t dim() const { return embedding_dim() + config_.task_columns + (config_.surface ? config_.surface->dim() : 0); }
  size_t embedding_dim() const { return config_.table.dim * (config_.head_tokens > 0 ? 2 : 1); }
  size_t table_dim() const { return config_.table.dim; }
  size_t max_tokens() const { return config_.max_tokens; }
  const WordPiece* tokenizer() const { return config_.tokenizer.get(); }
  bool has_tokenizer() const { return config_.tokenizer != nullptr; }

  // The instruction set that runs, never "auto": what the constructor made of the config's.
  const char* isa() const;

  // How many tokens there are, by mapping or by the table's rows: ids are below it.
  size_t token_count() const;

 private:
  // What encode_ids does; without the head view where `head` is null.
  EncodeInfo embed(const uint32_t* ids, size_t count, float* mean, float* head) const;

  // Adds a turn's mean to the sum in x of `before` newer ones; the first is copied. Then what is left to do with it.
  void add_faded(const float* mean, int64_t before, float* x) const;
  void finish_faded(int64_t count, float* x) const;

  // Writes the mean of the rows of `size` known ids, table.dim floats.
  void mean_of(const uint32_t* known, size_t size, float* x) const;

  StaticEncoderConfig config_;

  // Of the tokenizer, or the config's; UINT32_MAX: no token is dropped.
  uint32_t unk_id_;
  const Kernels* kernels_;
};

}  // namespace ipr
