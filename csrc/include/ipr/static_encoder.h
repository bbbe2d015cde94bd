// Prompt -> embedding: the mean of the table rows of its tokens (docs/design.md, section 7).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ipr/wordpiece.h"
#include "simd/gather.h"

namespace ipr {

struct StaticTable {
  const void* data = nullptr;  // (rows, dim), C order; borrowed
  TableType type = TableType::kFloat32;
  size_t rows = 0, dim = 0;
};

struct StaticEncoderConfig {
  StaticTable table;
  std::vector<uint32_t> mapping;               // token id -> row; empty: the same
  std::vector<float> weights;                  // per token id; empty: all 1
  std::shared_ptr<const WordPiece> tokenizer;  // null: only encode_ids works
  int64_t unk_id = -1;  // the id that is dropped; -1: none. With a tokenizer it is the tokenizer's
  size_t max_tokens = 512;
  bool normalize = true;
  std::string isa = "auto";  // auto, scalar, avx2, avx512
};

struct EncodeInfo {
  size_t tokens;   // billed: of the whole text, UNK included
  size_t kept;     // rows in the mean
  bool truncated;  // more than max_tokens known tokens: the middle was cut out
};

class StaticEncoder {
 public:
  // Throws InvalidInput for a config that does not fit together, BackendUnavailable for an isa this machine lacks.
  explicit StaticEncoder(StaticEncoderConfig config);

  // Every method below may be called from many threads at once.

  // x: (dim,). utf8: as WordPiece wants it.
  EncodeInfo encode(const char* utf8, size_t bytes, float* x) const;
  // ids: below token_count(), each word's first with kWordStart.
  EncodeInfo encode_ids(const uint32_t* ids, size_t count, float* x) const;
  size_t count_tokens(const char* utf8, size_t bytes) const;

  size_t dim() const { return config_.table.dim; }
  size_t max_tokens() const { return config_.max_tokens; }
  const char* isa() const { return kernels_->isa; }
  bool has_tokenizer() const { return config_.tokenizer != nullptr; }
  // Token ids are below it.
  size_t token_count() const;

 private:
  StaticEncoderConfig config_;
  uint32_t unk_id_;  // UINT32_MAX: none
  const GatherKernels* kernels_;
};

}  // namespace ipr
