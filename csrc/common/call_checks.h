// The rules about a call's arguments that hold in both extensions. None of them reads a value, so nothing here waits
// for a device; what depends on values, such as an id outside its table, each backend checks in its own way.
#pragma once

#include <algorithm>

#include "tensors.h"

namespace dendritic_bert {

// The arguments of the ops as torch passes them, in groups. kernels/ops.py describes each of them.
struct TokenTensors {
  const Tensor& input_ids;
  const OptionalTensor &attention_mask, &cu_seqlens, &token_type_ids, &position_ids;
};

struct DsnTensors {
  const Tensor& word;
  const OptionalTensor& word_scale;
  const Tensor& context;
  double eps;
  const Tensor &weight, &bias, &beta_bias, &lateral, &top;
  int64_t activation;
};

struct EmbeddingTensors {
  const Tensor &word, &position, &token_type, &ln_weight, &ln_bias;
  double eps, p_embed, p_pool;
  const OptionalTensor& seed;
};

// ---- tokens ---------------------------------------------------------------------------------------------------------

inline void expect_ids_shape(const char* name, const Tensor& tensor, const Tensor& input_ids) {
  const bool same = tensor.dim() == input_ids.dim() && tensor.size(0) == input_ids.size(0) &&
                    (tensor.dim() == 1 || tensor.size(1) == input_ids.size(1));
  if (!same) fail(name, " has shape ", shape_of(tensor), ", expected ", shape_of(input_ids), ", that of input_ids.");
}

inline void read_cu_seqlens(TokenArrays& tokens, const Tensor& cu_seqlens, TensorReader& reader) {
  if (cu_seqlens.dim() != 1 || cu_seqlens.numel() == 0)
    fail("cu_seqlens has shape ", shape_of(cu_seqlens), ", expected [B + 1].");
  // No row has a place for a token. The shapes alone tell, so even a backend that cannot read values refuses this.
  if (cu_seqlens.numel() == 1 && tokens.total > 0)
    fail("cu_seqlens has shape [1], no row, beside ", tokens.total, " input_ids: pass the end of each row too.");
  tokens.cu_seqlens = reader.indices("cu_seqlens", cu_seqlens);
  tokens.rows = cu_seqlens.numel() - 1;
}

// Only mean_masked leaves out the tokens that are masked; for the other poolings the values do not matter.
inline void read_mask(TokenArrays& tokens, const Tensor& mask, const Tensor& input_ids, TensorReader& reader) {
  expect_ids_shape("attention_mask", mask, input_ids);
  if (tokens.pooling != Pooling::mean_masked) return reader.expect_device("attention_mask", mask);
  switch (mask.scalar_type()) {
    case ScalarType::Bool:
    case ScalarType::Byte:
    case ScalarType::Char: tokens.mask_bytes = 1; break;
    case ScalarType::Int: tokens.mask_bytes = 4; break;
    case ScalarType::Long: tokens.mask_bytes = 8; break;
    default: fail("attention_mask is none of bool, uint8, int8, int32, int64: pass attention_mask != 0.");
  }
  tokens.mask = reader.data("attention_mask", mask);
}

inline TokenArrays read_tokens(const TokenTensors& tensors, int64_t pooling, TensorReader& reader) {
  const auto& [input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids] = tensors;
  if (input_ids.dim() != (cu_seqlens ? 1 : 2))
    fail("input_ids has shape ", shape_of(input_ids), ", expected [B, L], or [T] beside cu_seqlens.");
  if (pooling < 0 || pooling > 2) fail("pooling is ", pooling, ", expected 0, 1 or 2.");
  if (cu_seqlens && attention_mask)
    fail("attention_mask and cu_seqlens are both given: pass the mask with [B, L], cu_seqlens with [T].");
  TokenArrays tokens;
  tokens.pooling = Pooling(pooling);
  tokens.total = input_ids.numel();
  tokens.ids = reader.indices("input_ids", input_ids);
  if (cu_seqlens) {
    read_cu_seqlens(tokens, *cu_seqlens, reader);
  } else {
    tokens.rows = input_ids.size(0);
    tokens.length = input_ids.size(1);
  }
  if (attention_mask) read_mask(tokens, *attention_mask, input_ids, reader);
  if (token_type_ids) {
    expect_ids_shape("token_type_ids", *token_type_ids, input_ids);
    tokens.token_types = reader.indices("token_type_ids", *token_type_ids);
  }
  if (position_ids) {
    expect_ids_shape("position_ids", *position_ids, input_ids);
    tokens.positions = reader.indices("position_ids", *position_ids);
  }
  return tokens;
}

// Without position_ids a token's position is its column, so a row must not be longer than the position table.
[[noreturn]] inline void fail_row_too_long(int64_t row, int64_t length, int64_t num_positions) {
  fail("row ", row, " has ", length, " tokens, the position table ", num_positions, ": truncate the row.");
}

inline void set_table_sizes(TokenArrays& tokens, int64_t vocab_size, int64_t num_types, int64_t num_positions) {
  if (vocab_size > INT32_MAX || num_types * num_positions > INT32_MAX)
    fail("a table has more than 2^31 - 1 rows, which the kernels cannot address: use the reference backend.");
  if (!tokens.cu_seqlens.data && !tokens.positions.data && tokens.rows > 0 && tokens.length > num_positions)
    fail_row_too_long(0, tokens.length, num_positions);
  tokens.vocab_size = vocab_size;
  tokens.num_types = num_types;
  tokens.num_positions = num_positions;
}

// ---- prepared tables and heads --------------------------------------------------------------------------------------

// The word type of a table of parameters or, where `prepared`, of a prepared one.
inline WordType word_type_of(const char* name, const Tensor& tensor, bool prepared) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return WordType::float32;
    case ScalarType::BFloat16: return WordType::bfloat16;
    case ScalarType::Half: return WordType::float16;
    case ScalarType::Char:
      if (prepared) return WordType::int8;
      break;
    case ScalarType::Float8_e4m3fn:
      if (prepared) return WordType::float8_e4m3;
      break;
    default: break;
  }
  fail(name, " is none of float32, bfloat16, float16", prepared ? ", int8, float8_e4m3fn" : "", ": convert it.");
}

inline bool is_row_scaled(WordType type) { return type == WordType::int8 || type == WordType::float8_e4m3; }

inline int64_t hidden_size_of(const char* name, const Tensor& word) {
  if (word.dim() != 2 || word.size(1) == 0) fail(name, " has shape ", shape_of(word), ", expected [V, H] with H >= 1.");
  return word.size(1);
}

struct HeadSizes {
  int64_t num_labels, num_dendrites, outputs;  // outputs = (1 + num_dendrites) * num_labels
};

inline HeadSizes head_sizes_of(const Tensor& top) {
  if (top.dim() != 2) fail("top has shape ", shape_of(top), ", expected [N, C].");
  return {top.size(1), top.size(0), (1 + top.size(0)) * top.size(1)};
}

// Checks what a full-width head and a folded one share.
inline void expect_head(const HeadSizes& sizes, const Tensor& bias, const Tensor& beta_bias, const Tensor& lateral,
                        int64_t activation) {
  expect_shape("bias", bias, {sizes.outputs});
  expect_shape("beta_bias", beta_bias, {sizes.outputs});
  expect_shape("lateral", lateral, {sizes.num_dendrites, sizes.num_dendrites, sizes.num_labels});
  if (activation < 0 || activation > 3) fail("activation is ", activation, ", expected 0 to 3.");
}

// Checks the tables and the head that kernels/prepare.py makes.
inline HeadSizes expect_dsn(const DsnTensors& dsn) {
  const int64_t hidden_size = hidden_size_of("word", dsn.word);
  if (dsn.context.dim() != 3 || dsn.context.size(0) == 0 || dsn.context.size(2) != hidden_size)
    fail("context has shape ", shape_of(dsn.context), ", expected [K, P, ", hidden_size, "] with K >= 1.");
  if (is_row_scaled(word_type_of("word", dsn.word, true)) != dsn.word_scale.has_value())
    fail("word_scale goes with an int8 or float8_e4m3fn word table and with no other.");
  if (dsn.word_scale) expect_shape("word_scale", *dsn.word_scale, {dsn.word.size(0)});
  const HeadSizes sizes = head_sizes_of(dsn.top);
  expect_shape("weight", dsn.weight, {sizes.outputs, hidden_size});
  expect_head(sizes, dsn.bias, dsn.beta_bias, dsn.lateral, dsn.activation);
  return sizes;
}

// ---- training -------------------------------------------------------------------------------------------------------

inline void expect_dropout(double p_embed, double p_pool, const OptionalTensor& seed) {
  if (!(p_embed >= 0 && p_embed < 1)) fail("p_embed is ", p_embed, ", expected 0 <= p_embed < 1.");
  if (!(p_pool >= 0 && p_pool < 1)) fail("p_pool is ", p_pool, ", expected 0 <= p_pool < 1.");
  if (p_embed == 0 && p_pool == 0) return;
  if (!seed || seed->numel() != 1 || seed->scalar_type() != ScalarType::Long)
    fail("seed is missing or not one int64, which dropout needs.");
}

// Checks the parameters of embed_pool: one dtype, one hidden size, no empty table of positions or token types.
inline void expect_embeddings(const EmbeddingTensors& embeddings) {
  const Tensor& word = embeddings.word;
  const int64_t hidden_size = hidden_size_of("word_embeddings", word);
  word_type_of("word_embeddings", word, false);
  const auto expect = [&](const char* name, const Tensor& tensor, int64_t dims) {
    if (tensor.dim() != dims || tensor.size(dims - 1) != hidden_size)
      fail(name, " has shape ", shape_of(tensor), ", expected ", dims == 2 ? "[*, " : "[", hidden_size,
           "], the hidden size of word_embeddings.");
    if (tensor.scalar_type() != word.scalar_type())
      fail(name, " has another dtype than word_embeddings: convert one of them.");
  };
  expect("position_embeddings", embeddings.position, 2);
  expect("token_type_embeddings", embeddings.token_type, 2);
  expect("ln_weight", embeddings.ln_weight, 1);
  expect("ln_bias", embeddings.ln_bias, 1);
  if (embeddings.position.size(0) == 0 || embeddings.token_type.size(0) == 0)
    fail("position_embeddings or token_type_embeddings has no row.");
  expect_dropout(embeddings.p_embed, embeddings.p_pool, embeddings.seed);
}

// Checks what backward is given beside the arguments of forward, for rows of the hidden size.
inline void expect_gradient(const Tensor& grad_pooled, const Tensor& pooled_hat, int64_t rows, const Tensor& word) {
  expect_shape("grad_pooled", grad_pooled, {rows, word.size(1)});
  expect_shape("pooled_hat", pooled_hat, {rows, word.size(1)});
  if (grad_pooled.scalar_type() != word.scalar_type())
    fail("grad_pooled has another dtype than word_embeddings: convert it.");
}

}  // namespace dendritic_bert
