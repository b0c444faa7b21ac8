// From the tensors of a call to the kernels' plain arguments, with every check that needs no value: nothing here waits
// for the device. What depends on values, an id outside its table above all, the kernels answer with NaN.
#pragma once

#include <algorithm>

#include "../common/call_checks.h"
#include "../common/philox.h"
#include "arguments.h"
#include "plan.h"

namespace dendritic_bert {

inline Tokens tokens_of(const TokenTensors& given, int64_t pooling, TensorReader& reader) {
  return {read_tokens(given, pooling, reader)};
}

inline int supported_hidden_size(const char* name, const Tensor& word) {
  const int64_t hidden_size = hidden_size_of(name, word);
  if (hidden_size > max_hidden_size)
    fail(name, " has shape ", shape_of(word), ", the cuda backend takes a hidden size of ", max_hidden_size,
         " at most: use another backend.");
  return int(hidden_size);
}

inline Dropout dropout_of(double p_embed, double p_pool, const int64_t* seed) {
  return {seed, dropout_threshold(p_embed), dropout_threshold(p_pool), dropout_scale(p_embed), dropout_scale(p_pool)};
}

// A call of dsn_logits or dsn_token_logits. Owns what had to be copied, so it must live until the kernel is launched.
struct LogitsCall {
  TensorReader reader;
  LogitsArguments arguments;  // all but the plan and the result

  LogitsCall(const TokenTensors& token_tensors, const DsnTensors& dsn, int64_t pooling)
      : reader(token_tensors.input_ids), arguments{} {
    arguments.tokens = tokens_of(token_tensors, pooling, reader);
    const HeadSizes sizes = expect_dsn(dsn);
    Table& table = arguments.table;
    table.hidden_size = supported_hidden_size("word", dsn.word);
    set_table_sizes(arguments.tokens, dsn.word.size(0), dsn.context.size(0), dsn.context.size(1));
    table.word_type = word_type_of("word", dsn.word, true);
    table.word = reader.data("word", dsn.word);
    table.word_scale = dsn.word_scale ? reader.float_data("word_scale", *dsn.word_scale) : nullptr;
    table.context = reader.float_data("context", dsn.context);
    table.eps = float(dsn.eps);
    arguments.head = {reader.float_data("weight", dsn.weight),
                      reader.float_data("bias", dsn.bias),
                      reader.float_data("beta_bias", dsn.beta_bias),
                      reader.float_data("lateral", dsn.lateral),
                      reader.float_data("top", dsn.top),
                      int(sizes.num_labels),
                      int(sizes.num_dendrites),
                      Activation(dsn.activation)};
  }
};

// A call of embed_pool or of the first part of its backward. Owns what had to be copied. The caller provides the
// context table, which has the token types and positions that may occur.
struct TrainingCall {
  TensorReader reader;
  Tokens tokens;
  Table table;
  Dropout dropout;
  ContextArguments context;
  const void *ln_weight, *ln_bias;

  TrainingCall(const TokenTensors& token_tensors, const EmbeddingTensors& given, int64_t pooling)
      : reader(token_tensors.input_ids), tokens(tokens_of(token_tensors, pooling, reader)) {
    expect_embeddings(given);
    set_table_sizes(tokens, given.word.size(0), given.token_type.size(0), given.position.size(0));
    table.hidden_size = supported_hidden_size("word_embeddings", given.word);
    table.word_type = word_type_of("word_embeddings", given.word, false);
    table.word = reader.data("word_embeddings", given.word);
    table.eps = float(given.eps);
    ln_weight = reader.data("ln_weight", given.ln_weight);
    ln_bias = reader.data("ln_bias", given.ln_bias);
    if (given.p_embed > 0 || given.p_pool > 0)
      dropout = dropout_of(given.p_embed, given.p_pool, static_cast<const int64_t*>(reader.data("seed", *given.seed)));
    context.type = table.word_type;
    context.position = reader.data("position_embeddings", given.position);
    context.token_type = reader.data("token_type_embeddings", given.token_type);
    context.hidden_size = table.hidden_size;
    if (!token_tensors.token_type_ids) tokens.num_types = 1;
    if (!token_tensors.position_ids)
      tokens.num_positions = std::clamp<int64_t>(longest_row(tokens), 1, tokens.num_positions);
    context.num_types = tokens.num_types;
    context.num_positions = tokens.num_positions;
  }
};

}  // namespace dendritic_bert
