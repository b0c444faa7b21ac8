// From the tensors of a call to the kernels' plain arguments, with every check that needs no value: nothing here waits
// for the device. What depends on values, an id outside its table above all, the kernels answer with NaN.
#pragma once

#include <algorithm>

#include "../common/call_checks.h"
#include "../common/philox.h"
#include "../common/window_checks.h"
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

// A call of dsn_window_logits. Owns what had to be copied, so it must live until the kernel is launched.
struct WindowCall {
  TensorReader reader;
  WindowArguments arguments;  // all but the splits' memory, the tile and the result

  WindowCall(const TokenTensors& token_tensors, const WindowTensors& tensors, const Tensor& window_weight)
      : reader(token_tensors.input_ids), arguments{} {
    Tokens& tokens = arguments.tokens;
    tokens = tokens_of(token_tensors, int64_t(Pooling::mean_masked), reader);
    const WindowSizes sizes = expect_windows(tensors);
    Windows& windows = arguments.windows;
    windows.weight_type = expect_window_weight(sizes, window_weight);
    expect_tile_for(sizes);
    if (sizes.num_types * sizes.vocab_size > INT32_MAX)
      fail("values has more than 2^31 - 1 rows, which the kernels cannot address: use the reference backend.");
    tokens.vocab_size = sizes.vocab_size;
    tokens.num_types = sizes.num_types;
    tokens.num_positions = INT64_MAX;  // a model with windows has none: its rows may have any length
    windows.values = aligned_floats("values", tensors.values);
    windows.gate = tensors.gate ? aligned_floats("gate", *tensors.gate) : nullptr;
    windows.taps = aligned_floats("taps", tensors.taps);
    windows.bias = aligned_floats("window_bias", tensors.window_bias);
    windows.weight = aligned("window_weight", window_weight);
    windows.gate_weight = aligned_floats("gate_weight", tensors.gate_weight);
    windows.folded = sizes.folded;
    windows.num_values = int(sizes.num_values);
    windows.channels = int(sizes.channels);
    windows.radius = int(sizes.num_taps / 2);
    windows.num_layers = int(sizes.num_layers);
    arguments.head = {aligned_floats("weight", tensors.weight),
                      reader.float_data("bias", tensors.bias),
                      nullptr,
                      reader.float_data("lateral", tensors.lateral),
                      reader.float_data("top", tensors.top),
                      int(sizes.head.num_labels),
                      int(sizes.head.num_dendrites),
                      Activation(tensors.activation)};
    arguments.plan = plan_windows(tokens);
  }

 private:
  std::vector<Tensor> copies_;

  // Of these the kernel loads 16 bytes at a time.
  const void* aligned(const char* name, const Tensor& tensor) {
    const void* const data = reader.data(name, tensor);
    if (reinterpret_cast<uintptr_t>(data) % 16 == 0) return data;
    copies_.push_back(torch::stable::clone(tensor));
    return data_of<const void>(copies_.back());
  }

  const float* aligned_floats(const char* name, const Tensor& tensor) {
    if (tensor.scalar_type() != ScalarType::Float) fail(name, " is not float32: convert it.");
    return static_cast<const float*>(aligned(name, tensor));
  }

  static void expect_tile_for(const WindowSizes& sizes) {
    if (sizes.channels > most_window_channels)
      fail("taps has ", sizes.channels, " channels, the cuda backend takes ", most_window_channels,
           " at most: use another backend.");
    const int64_t radius = sizes.num_taps / 2, doublings = std::min<int64_t>(sizes.num_layers, 10);
    const int64_t reach = std::min<int64_t>(radius, most_window_tile) * ((int64_t(1) << doublings) - 1);
    if (shortest_window_tile(reach, 32) > most_window_tile)
      fail("taps has ", sizes.num_taps, " taps beside ", sizes.num_layers, " layers, which see more than ",
           (most_window_tile - 32) / 2, " columns to each side: use another backend.");
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
