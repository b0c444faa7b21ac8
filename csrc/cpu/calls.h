// From the tensors of a call to the kernels' arguments. On a CPU values can be read, so whatever depends on them is
// checked too: cu_seqlens before the kernel runs, every index by the kernel itself.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/call_checks.h"
#include "../common/philox.h"
#include "arguments.h"

namespace dendritic_bert {

inline void parallel_for(int64_t begin, int64_t end, int64_t grain, RangeBody body, void* context) {
  if (end - begin <= grain) return body(begin, end, context);
  torch::stable::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) { body(first, last, context); });
}

inline Tensor as_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// The gradient of the word table is fresh memory at every step. Huge pages reduce its page faults from thousands to
// tens, which saves a quarter of the time of forward and backward together at H = 128 and 32,768 tokens.
inline void advise_huge_pages([[maybe_unused]] const Tensor& tensor) {
#ifdef __linux__
  constexpr uintptr_t page = uintptr_t(1) << 21;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + size_t(tensor.numel()) * tensor.element_size()) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// The tokens of a call. Owns whatever had to be copied or converted.
struct CallTokens {
  TensorReader reader;
  Tokens tokens;

  CallTokens(const TokenTensors& tensors, int64_t pooling)
      : reader(tensors.input_ids), tokens{read_tokens(tensors, pooling, reader)} {
    tokens.bad_index = &bad_index_;
    if (tensors.cu_seqlens) check_cu_seqlens();
  }
  CallTokens(const CallTokens&) = delete;  // `tokens` points into it

  // The sizes of the tables. A row longer than the position table is refused here, a bad index by the kernel.
  void set_tables(int64_t vocab_size, int64_t num_types, int64_t num_positions) {
    set_table_sizes(tokens, vocab_size, num_types, num_positions);
    tokens.positions_stride = num_positions;
    if (!tokens.cu_seqlens.data || tokens.positions.data) return;
    for (int64_t row = 0; row < tokens.rows; ++row)
      if (tokens.row_length(row) > num_positions) fail_row_too_long(row, tokens.row_length(row), num_positions);
  }

  int64_t longest_row() const {
    if (!tokens.cu_seqlens.data) return tokens.rows ? tokens.length : 0;
    int64_t longest = 0;
    for (int64_t row = 0; row < tokens.rows; ++row) longest = std::max(longest, tokens.row_length(row));
    return longest;
  }

  // To be called when the kernel has run: names the first index that is outside its table.
  void raise_bad_index() const {
    if (bad_index_ == INT64_MAX) return;
    const int64_t token = bad_index_ / 4;
    int64_t row = 0;
    while (tokens.row_start(row) + tokens.row_length(row) <= token) ++row;
    const auto raise = [&](const char* name, const Indices& indices, int64_t size) {
      fail(name, " holds ", indices[token], " in row ", row, ", expected 0 to ", size - 1, ".");
    };
    switch (bad_index_ % 4) {
      case bad_id: return raise("input_ids", tokens.ids, tokens.vocab_size);
      case bad_token_type: return raise("token_type_ids", tokens.token_types, tokens.num_types);
      default: return raise("position_ids", tokens.positions, tokens.num_positions);
    }
  }

 private:
  std::vector<int64_t> widened_;
  int64_t bad_index_ = INT64_MAX;

  void check_cu_seqlens() {
    if (!tokens.cu_seqlens.is_int64) {
      for (int64_t i = 0; i <= tokens.rows; ++i) widened_.push_back(tokens.cu_seqlens[i]);
      tokens.cu_seqlens = {widened_.data(), true};
    }
    const int64_t* const bounds = tokens.bounds();
    if (bounds[0] != 0 || bounds[tokens.rows] != tokens.total)
      fail("cu_seqlens runs from ", bounds[0], " to ", bounds[tokens.rows], ", expected 0 to ", tokens.total,
           ", the number of input_ids.");
    for (int64_t row = 0; row < tokens.rows; ++row)
      if (bounds[row + 1] < bounds[row])
        fail("cu_seqlens falls from ", bounds[row], " to ", bounds[row + 1], " at row ", row, ".");
  }
};

// What the forward and the backward of embed_pool share: their arguments, and the context table [K, P, H] of the token
// types and positions that may occur, in float32, each row padded by pad_channels.
struct TrainingCall {
  CallTokens call;
  Table table;
  Dropout dropout;
  const float *ln_weight, *ln_bias;  // [H]
  int64_t num_types, num_positions;  // of the context table
  ScalarType parameter_type;

  TrainingCall(const TokenTensors& token_tensors, const EmbeddingTensors& embeddings, int64_t pooling)
      : call(token_tensors, pooling), parameter_type(embeddings.word.scalar_type()) {
    const Tensor &word = embeddings.word, &position = embeddings.position, &token_type = embeddings.token_type;
    expect_embeddings(embeddings);
    const uint64_t seed = embeddings.seed ? uint64_t(*data_of<const int64_t>(*embeddings.seed)) : 0;
    dropout = {embeddings.p_embed, embeddings.p_pool, seed};
    call.set_tables(word.size(0), token_type.size(0), position.size(0));
    num_types = token_tensors.token_type_ids ? token_type.size(0) : 1;
    num_positions = token_tensors.position_ids ? position.size(0) : std::max<int64_t>(1, call.longest_row());
    call.tokens.num_positions = call.tokens.positions_stride = num_positions;
    ln_weight = call.reader.as_float_data("ln_weight", embeddings.ln_weight);
    ln_bias = call.reader.as_float_data("ln_bias", embeddings.ln_bias);
    table.word_type = word_type_of("word_embeddings", word, false);
    table.word = call.reader.data("word_embeddings", word);
    table.hidden_size = word.size(1);
    table.eps = float(embeddings.eps);
    build_context(call.reader.as_float_data("position_embeddings", position),
                  call.reader.as_float_data("token_type_embeddings", token_type));
  }

 private:
  std::vector<float> context_;

  void build_context(const float* position, const float* token_type) {
    const int64_t hidden_size = table.hidden_size;
    table.context_stride = pad_channels(hidden_size);
    context_.assign(size_t(num_types * num_positions * table.context_stride), 0.0f);
    for (int64_t k = 0; k < num_types; ++k)
      for (int64_t p = 0; p < num_positions; ++p) {
        float* row = context_.data() + (k * num_positions + p) * table.context_stride;
        for (int64_t h = 0; h < hidden_size; ++h)
          row[h] = position[p * hidden_size + h] + token_type[k * hidden_size + h];
      }
    table.context = context_.data();
  }
};

}  // namespace dendritic_bert
