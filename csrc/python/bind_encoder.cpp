// WordPiece and StaticEncoder for Python. ipr_engine/encoders/ wraps them; argument names are those users see.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bind_encoder.h"
#include "borrowed_texts.h"
#include "ipr/errors.h"
#include "ipr/wordpiece.h"
#include "py_text.h"

namespace py = pybind11;

namespace {

using ipr::EncodeInfo;
using ipr::PyStaticEncoder;
using ipr::run_released;
using ipr::StaticEncoder;
using ipr::Utf8;
using ipr::utf8_of;
using ipr::WordPiece;

std::shared_ptr<WordPiece> make_wordpiece(const py::dict& vocab, const std::string& unk_token,
                                          const std::string& continuing_prefix, size_t max_chars_per_word,
                                          bool clean_text, bool handle_chinese_chars, std::optional<bool> strip_accents,
                                          bool lowercase, bool fold_width) {
  ipr::WordPieceOptions options;
  options.clean_text = clean_text;
  options.handle_chinese_chars = handle_chinese_chars;
  options.strip_accents = strip_accents.value_or(lowercase);
  options.lowercase = lowercase;
  options.fold_width = fold_width;
  options.continuing_prefix = continuing_prefix;
  options.unk_token = unk_token;
  options.max_chars_per_word = max_chars_per_word;
  std::vector<std::pair<std::string, uint32_t>> tokens;
  tokens.reserve(vocab.size());
  for (const auto& [token, id] : vocab) {
    const Utf8 text = utf8_of(token, "vocab");
    IPR_CHECK(PyLong_Check(id.ptr()) && !PyBool_Check(id.ptr()), "vocab: expected int ids, got ",
              Py_TYPE(id.ptr())->tp_name, " for '", text.data, "'");
    const long long value = PyLong_AsLongLong(id.ptr());
    if (value == -1) PyErr_Clear();
    IPR_CHECK(value >= 0 && value <= ipr::kIdMask, "vocab: expected ids from 0 to 2^31 - 1, got ",
              py::str(id).cast<std::string>(), " for '", text.data, "'");
    tokens.emplace_back(std::string(text.data, text.bytes), static_cast<uint32_t>(value));
  }
  return std::make_shared<WordPiece>(tokens, options);
}

// (ids (tokens,) uint32, starts (tokens,) bool)
py::tuple wordpiece_encode(const WordPiece& tokenizer, const py::handle& text) {
  const Utf8 utf8 = utf8_of(text, "text");
  ipr::TokenIds ids;
  run_released(utf8.bytes, [&] { tokenizer.tokenize(utf8.data, utf8.bytes, ids); });
  py::array_t<uint32_t> out(static_cast<py::ssize_t>(ids.size()));
  py::array_t<bool> starts(static_cast<py::ssize_t>(ids.size()));
  for (size_t k = 0; k < ids.size(); ++k) {
    out.mutable_data()[k] = ids.data()[k] & ipr::kIdMask;
    starts.mutable_data()[k] = (ids.data()[k] & ipr::kWordStart) != 0;
  }
  return py::make_tuple(out, starts);
}

ipr::StaticTable table_of(const py::array& table) {
  IPR_CHECK(table.ndim() == 2, "embeddings: expected 2 dimensions (rows, dim), got ", table.ndim());
  IPR_CHECK(table.flags() & py::array::c_style, "embeddings: expected a C-contiguous array");
  const char kind = table.dtype().kind();
  const py::ssize_t size = table.dtype().itemsize();
  ipr::StaticTable out;
  if (kind == 'f' && size == 4) {
    out.type = ipr::TableType::kFloat32;
  } else if (kind == 'f' && size == 2) {
    out.type = ipr::TableType::kFloat16;
  } else if (kind == 'i' && size == 1) {
    out.type = ipr::TableType::kInt8;
  } else {
    ipr::fail("embeddings: expected float32, float16 or int8, got ", py::str(table.dtype()).cast<std::string>());
  }
  IPR_CHECK(table.dtype().byteorder() != '>', "embeddings: expected little-endian values");
  IPR_CHECK(reinterpret_cast<uintptr_t>(table.data()) % static_cast<size_t>(size) == 0,
            "embeddings: expected aligned memory");
  out.data = table.data();
  out.rows = static_cast<size_t>(table.shape(0));
  out.dim = static_cast<size_t>(table.shape(1));
  return out;
}

std::unique_ptr<PyStaticEncoder> make_static_encoder(const py::array& embeddings,
                                                     std::shared_ptr<const WordPiece> tokenizer,
                                                     std::optional<py::array_t<int64_t, py::array::c_style>> mapping,
                                                     std::optional<py::array_t<float, py::array::c_style>> weights,
                                                     int64_t unk_id, size_t max_tokens, size_t head_tokens,
                                                     bool normalize, const std::string& isa, size_t task_columns,
                                                     std::shared_ptr<const ipr::SurfaceFeatures> surface) {
  ipr::StaticEncoderConfig config;
  config.table = table_of(embeddings);
  if (mapping) {
    IPR_CHECK(mapping->ndim() == 1 && mapping->size() > 0, "mapping: expected shape (tokens,)");
    config.mapping.resize(static_cast<size_t>(mapping->size()));
    for (size_t id = 0; id < config.mapping.size(); ++id) {
      const int64_t row = mapping->data()[id];
      IPR_CHECK(row >= 0 && static_cast<uint64_t>(row) < config.table.rows, "mapping: expected rows from 0 to ",
                config.table.rows - 1, ", got ", row, " at token ", id);
      config.mapping[id] = static_cast<uint32_t>(row);
    }
  }
  if (weights) {
    IPR_CHECK(weights->ndim() == 1 && weights->size() > 0, "weights: expected shape (tokens,)");
    config.weights.assign(weights->data(), weights->data() + weights->size());
  }
  config.tokenizer = std::move(tokenizer);
  config.unk_id = unk_id;
  config.max_tokens = max_tokens;
  config.head_tokens = head_tokens;
  config.normalize = normalize;
  config.isa = isa;
  config.task_columns = task_columns;
  config.surface = std::move(surface);
  return std::unique_ptr<PyStaticEncoder>(new PyStaticEncoder{embeddings, StaticEncoder(std::move(config))});
}

void check_tokenizer(const StaticEncoder& encoder) {
  IPR_CHECK(encoder.has_tokenizer(), "prompts: this encoder was built without a tokenizer; pass ids to encode_ids");
}

// (x (batch, dim) float32, billed_tokens (batch,) int64, truncated (batch,) bool)
py::tuple encode(const PyStaticEncoder& self, const py::object& prompts) {
  check_tokenizer(self.encoder);
  IPR_CHECK(!PyUnicode_Check(prompts.ptr()), "prompts: expected a sequence of str, got one str; pass [prompt]");
  IPR_CHECK(PyList_Check(prompts.ptr()) || PyTuple_Check(prompts.ptr()),
            "prompts: expected a list or tuple of str, got ", Py_TYPE(prompts.ptr())->tp_name);
  const py::tuple held(prompts);  // a list could change once the GIL is given up
  const size_t batch = held.size(), dim = self.encoder.dim();
  std::vector<Utf8> texts(batch);
  size_t bytes = 0;
  for (size_t row = 0; row < batch; ++row) {
    PyObject* text = PyTuple_GET_ITEM(held.ptr(), static_cast<Py_ssize_t>(row));
    if (!PyUnicode_Check(text) || !PyUnicode_IS_COMPACT_ASCII(text)) {
      texts[row] = utf8_of(text, "prompts[" + std::to_string(row) + "]");
    } else {
      texts[row] = {reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(text)),
                    static_cast<size_t>(PyUnicode_GET_LENGTH(text))};
    }
    bytes += texts[row].bytes;
  }
  py::array_t<float> x({batch, dim});
  py::array_t<int64_t> billed(static_cast<py::ssize_t>(batch));
  py::array_t<bool> truncated(static_cast<py::ssize_t>(batch));
  float* x_data = x.mutable_data();
  int64_t* billed_data = billed.mutable_data();
  bool* truncated_data = truncated.mutable_data();
  run_released(bytes + batch, [&] {
    for (size_t row = 0; row < batch; ++row) {
      const EncodeInfo info = self.encoder.encode(texts[row].data, texts[row].bytes, x_data + row * dim);
      billed_data[row] = static_cast<int64_t>(info.tokens);
      truncated_data[row] = info.truncated;
    }
  });
  return py::make_tuple(x, billed, truncated);
}

// (x (batch, dim) float32, billed_tokens (batch,) int64, truncated (batch,) bool) of the turns of each request.
py::tuple encode_turns(const PyStaticEncoder& self, const py::list& turns, const std::string& conversation) {
  check_tokenizer(self.encoder);
  const ipr::Conversation what = ipr::conversation_of(conversation);
  IPR_CHECK(what != ipr::Conversation::kAll, "conversation: expected last or recency, got all; join the turns");
  const py::tuple rows(turns);  // a list could change once the GIL is given up
  const size_t batch = rows.size(), dim = self.encoder.dim();
  py::array_t<float> x({batch, dim});
  py::array_t<int64_t> billed(static_cast<py::ssize_t>(batch));
  py::array_t<bool> truncated(static_cast<py::ssize_t>(batch));
  for (size_t row = 0; row < batch; ++row) {
    const std::string name = "prompts[" + std::to_string(row) + "]";
    const py::handle given = PyTuple_GET_ITEM(rows.ptr(), static_cast<Py_ssize_t>(row));
    IPR_CHECK(PyTuple_Check(given.ptr()), name, ": expected a tuple of str");
    const auto held = py::reinterpret_borrow<py::tuple>(given);
    const ipr::BorrowedTexts texts(held, name.c_str());
    IPR_CHECK(texts.texts()->count > 0, name, ": expected at least one turn");
    float* const to = x.mutable_data() + row * dim;
    EncodeInfo info{};
    run_released(texts.bytes(), [&] { info = self.encoder.encode_turns(*texts.texts(), what, to); });
    billed.mutable_data()[row] = static_cast<int64_t>(info.tokens);
    truncated.mutable_data()[row] = info.truncated;
  }
  return py::make_tuple(x, billed, truncated);
}

// (dim,) float32 of the means (turns, dim) of a conversation's turns, newest first; dim: that of the table.
py::array_t<float> fade(const PyStaticEncoder& self, const py::array_t<float, py::array::c_style>& means) {
  const size_t dim = self.encoder.table_dim();
  IPR_CHECK(means.ndim() == 2 && static_cast<size_t>(means.shape(1)) == dim && means.shape(0) <= ipr::kMostFadingTurns,
            "means: expected shape (up to ", ipr::kMostFadingTurns, ", ", dim, ")");
  py::array_t<float> x(static_cast<py::ssize_t>(dim));
  self.encoder.fade(means.data(), means.shape(0), x.mutable_data());
  return x;
}

// (x (dim,) float32, truncated)
py::tuple encode_ids(const PyStaticEncoder& self, const py::array_t<uint32_t, py::array::c_style>& ids,
                     const py::array_t<bool, py::array::c_style>& starts) {
  IPR_CHECK(self.encoder.dim() == self.encoder.embedding_dim(),
            "ids: this encoder has columns behind the embedding's, which are of a text; pass prompts to encode");
  IPR_CHECK(ids.ndim() == 1, "ids: expected shape (tokens,), got ", ids.ndim(), " dimensions");
  IPR_CHECK(starts.ndim() == 1 && starts.size() == ids.size(), "starts: expected shape (tokens,) as ids has");
  const size_t tokens = self.encoder.token_count();
  std::vector<uint32_t> marked(ids.data(), ids.data() + ids.size());
  for (size_t k = 0; k < marked.size(); ++k) {
    IPR_CHECK(marked[k] < tokens, "ids: expected below ", tokens, ", got ", marked[k], " at ", k);
    if (starts.data()[k]) marked[k] |= ipr::kWordStart;
  }
  py::array_t<float> x(static_cast<py::ssize_t>(self.encoder.embedding_dim()));
  float* out = x.mutable_data();
  EncodeInfo info{};
  run_released(4 * marked.size(), [&] { info = self.encoder.encode_ids(marked.data(), marked.size(), out); });
  return py::make_tuple(x, info.truncated);
}

}  // namespace

void bind_encoder(py::module_& m) {
  py::class_<WordPiece, std::shared_ptr<WordPiece>>(m, "WordPiece")
      .def(py::init(&make_wordpiece), py::arg("vocab"), py::kw_only(), py::arg("unk_token") = "[UNK]",
           py::arg("continuing_prefix") = "##", py::arg("max_chars_per_word") = 100, py::arg("clean_text") = true,
           py::arg("handle_chinese_chars") = true, py::arg("strip_accents") = py::none(), py::arg("lowercase") = true,
           py::arg("fold_width") = false)
      .def("encode", &wordpiece_encode, py::arg("text"))
      .def(
          "count",
          [](const WordPiece& self, const py::handle& text) {
            const Utf8 utf8 = utf8_of(text, "text");
            size_t tokens = 0;
            run_released(utf8.bytes, [&] { tokens = self.count(utf8.data, utf8.bytes); });
            return tokens;
          },
          py::arg("text"))
      .def(
          "words",
          [](const WordPiece& self, const py::handle& text) {
            const Utf8 utf8 = utf8_of(text, "text");
            return self.words(utf8.data, utf8.bytes);
          },
          py::arg("text"))
      .def_property_readonly("unk_id", &WordPiece::unk_id)
      .def_property_readonly("max_id", &WordPiece::max_id);

  m.attr("MOST_FADING_TURNS") = ipr::kMostFadingTurns;
  py::class_<PyStaticEncoder>(m, "StaticEncoder")
      .def(py::init(&make_static_encoder), py::arg("embeddings"), py::kw_only(), py::arg("tokenizer") = py::none(),
           py::arg("mapping") = py::none(), py::arg("weights") = py::none(), py::arg("unk_id") = -1,
           py::arg("max_tokens") = 512, py::arg("head_tokens") = 0, py::arg("normalize") = true,
           py::arg("isa") = "auto", py::arg("task_columns") = 0, py::arg("surface") = py::none())
      .def("encode", &encode, py::arg("prompts"))
      .def("encode_turns", &encode_turns, py::arg("turns"), py::arg("conversation"))
      .def("fade", &fade, py::arg("means"))
      .def("encode_ids", &encode_ids, py::arg("ids"), py::arg("starts"))
      .def_property_readonly("dim", [](const PyStaticEncoder& self) { return self.encoder.dim(); })
      .def_property_readonly("token_count", [](const PyStaticEncoder& self) { return self.encoder.token_count(); })
      .def_property_readonly("isa", [](const PyStaticEncoder& self) { return self.encoder.isa(); });
}
