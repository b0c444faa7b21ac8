// What the binding passes to a kernel: pointers and sizes rather than tensors, so that kernel.cpp needs no header of
// torch. B is the number of rows, T of tokens, V of words, P of positions, K of token types, H of channels, C of
// labels.
#pragma once

#include <cstdint>

#include "../common/arguments.h"

namespace dendritic_bert {

// Positions of a word whose factors share a cache line in a folded table; POSITION_TILE of kernels/contract.py.
constexpr int64_t position_tile = 16;

// Rows of floats that kernels go over in whole vectors are padded to a multiple of so many channels.
constexpr int64_t channel_multiple = 16;
constexpr int64_t pad_channels(int64_t channels) {
  return (channels + channel_multiple - 1) / channel_multiple * channel_multiple;
}

// Runs body(begin, end, context) on torch's threads for ranges that together make up [begin, end).
using RangeBody = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain, RangeBody body, void* context);

// What is outside its table. *Tokens::bad_index is 4 * token + kind for the first such token, or INT64_MAX.
enum BadIndexKind : int { bad_id = 0, bad_token_type = 1, bad_position = 2 };

// Here cu_seqlens holds int64: the binding converts int32.
struct Tokens : TokenArrays {
  int64_t positions_stride = 0;  // rows of the context table per token type
  int64_t* bad_index = nullptr;

  const int64_t* bounds() const { return static_cast<const int64_t*>(cu_seqlens.data); }
  int64_t row_start(int64_t row) const { return cu_seqlens.data ? bounds()[row] : row * length; }
  int64_t row_length(int64_t row) const { return cu_seqlens.data ? bounds()[row + 1] - bounds()[row] : length; }
};

struct Table {
  const void* word = nullptr;  // [V, H]
  WordType word_type = WordType::float32;
  const float* word_scale = nullptr;  // [V], for int8 only
  const float* context = nullptr;     // [K * P, context_stride], of which H floats per row are used
  int64_t context_stride = 0;
  int64_t hidden_size = 0;
  float eps = 0;
  bool centred = false;  // whether every row of word and context has mean 0
};

// With N dendrites the head has (1 + N) * C outputs.
struct Head {
  const float* weight;            // [outputs, H]; null where it is folded into the tables
  const float *bias, *beta_bias;  // [outputs]; beta_bias is null where no LayerNorm is folded into the head
  const float* lateral;           // [N, N, C]
  const float* top;               // [N, C]
  int64_t num_labels, num_dendrites;
  Activation activation;
};

struct Dropout {
  double p_embed = 0, p_pool = 0;
  uint64_t seed = 0;
};

struct LogitsArguments {
  Tokens tokens;
  Table table;
  Head head;
  float* logits;  // [B, C]
  int num_threads;
  ParallelFor parallel_for;
};

// The tables with the head folded into them, see kernels/prepare.py. Each row of word and context has the outputs first
// and is padded to `stride` floats.
struct Folded {
  const float* rstd;     // [K, positions_stride / position_tile, V, position_tile]
  const float* word;     // [V, stride]
  const float* context;  // [K, positions_stride, stride]
  int64_t stride;
};

struct FoldedLogitsArguments {
  Tokens tokens;
  Folded folded;
  Head head;
  float* logits;  // [B, C]
  int num_threads;
  ParallelFor parallel_for;
};

// The tables and the layers of kernels/contract.py's WindowedDsn. J is the number of window layers, R = 2 * radius + 1
// that of taps, M of channels, a multiple of 16, D of the values that a token adds to the pooled row beside u.
struct Windows {
  const float* values;       // [K, V, D]
  const float* gate;         // [K, V]; null for a plain mean
  const float* taps;         // [K, V, R, M]
  const float* bias;         // [J, M]
  const void* weight;        // [J - 1, R, M, M] of weight_type, float32 or bfloat16
  const float* gate_weight;  // [M]
  WordType weight_type;
  bool folded;  // whether values are outputs of the head; else they and u are its inputs
  int64_t num_values, channels, radius, num_layers;

  // The columns on each side that layers read: those after `layer`, and all of them.
  int64_t halo_after(int64_t layer) const { return radius * (power_of_2(num_layers) - power_of_2(layer + 1)); }
  int64_t halo() const { return radius * (power_of_2(num_layers) - 1); }
  // 2^exponent and number / 2^exponent, for columns: a row has fewer than 2^40 of them.
  static int64_t power_of_2(int64_t exponent) { return int64_t(1) << (exponent < 40 ? exponent : 40); }
  static int64_t over_power_of_2(int64_t number, int64_t exponent) { return number >> (exponent < 40 ? exponent : 40); }
};

struct WindowLogitsArguments {
  Tokens tokens;
  Windows windows;
  Head head;      // weight [outputs, M] where folded, else [outputs, D + M]; no beta_bias
  float* logits;  // [B, C]
  ParallelFor parallel_for;
};

struct EmbedPoolArguments {
  Tokens tokens;
  Table table;
  Dropout dropout;
  const float *ln_weight, *ln_bias;  // [H]
  float *pooled, *pooled_hat;        // [B, H]; pooled_hat is the pooled row before gamma, beta and p_pool
  float* rstd;                       // [T]; not written for masked tokens
  int num_threads;
  ParallelFor parallel_for;
};

// What the gradient of a valid token is computed from, besides its row of the word table.
struct TokenPlace {
  float rstd;
  int32_t row, context, column;
};

// Pass 1 of the backward, over rows.
struct BackwardArguments {
  Tokens tokens;
  Table table;
  Dropout dropout;
  const float* ln_weight;                 // [H]
  const float *grad_pooled, *pooled_hat;  // [B, H]
  const float* rstd;                      // [T]
  int64_t num_contexts;                   // rows of table.context
  TokenPlace* places;                     // [T], written for valid tokens
  float* row_gradient;                    // [B, H padded to whole vectors]
  float *d_ln_weight, *d_ln_bias;         // [H]
  ParallelFor parallel_for;
};

// Pass 2 of the backward, over segments: the valid tokens sorted by id (segments.h).
struct SegmentsBackwardArguments {
  const BackwardArguments& rows_pass;
  const int32_t* tokens;  // [the number of valid tokens]
  const int64_t* starts;  // [num_segments + 1]: segment s is tokens [starts[s], starts[s + 1])
  const int64_t* ids;     // [num_segments], rising
  int64_t num_segments;
  WordGradient word_gradient;
  void* d_word;      // of the word type; segment s owns row ids[s] where dense, row s where sparse
  float* d_context;  // [num_contexts, H]
};

// The parameters of window_pool, all in float32: J layers of M dendrites on windows of 2 * radius + 1 = R tokens.
// Without LayerNorm, and without a gate, the pointers to their parameters are null.
struct WindowPoolArguments {
  Tokens tokens;
  const float *word, *token_type;             // [V, H], [K, H]
  const float *ln_weight, *ln_bias;           // [H]
  const float *input_weight, *weight, *bias;  // [R, H, M], [J - 1, R, M, M], [J, M]
  const float *gate_weight, *gate_bias;       // [H + M], [V]
  int64_t hidden_size, dendrites, radius, num_layers;
  float eps;
  double p_embed, p_window, p_pool;
  uint64_t seed;
  ParallelFor parallel_for;
};

// Pass 1 of its backward, over rows: the gradients of all parameters but those of a word, and what each token adds to
// those. They have the shapes of the parameters.
struct WindowPoolBackwardArguments {
  const WindowPoolArguments& forward;
  const float* grad_pooled;  // [B, H + M]
  float *d_token, *d_logit;  // [T, pad_channels(H)] and [T], written for valid tokens
  float *d_token_type, *d_ln_weight, *d_ln_bias, *d_input_weight, *d_weight, *d_bias, *d_gate_weight;
};

// Pass 2, over segments: what the tokens of a word add up to, in the rows of the words that occur.
struct WindowPoolWordsArguments {
  const int32_t* tokens;  // as in SegmentsBackwardArguments
  const int64_t *starts, *ids;
  int64_t num_segments, hidden_size;
  const float *d_token, *d_logit;
  float* d_word;       // [V, H]
  float* d_gate_bias;  // [V]; null without a gate
  ParallelFor parallel_for;
};

// The kernels of one instruction set.
struct Kernels {
  const char* name;
  void (*dsn_logits)(const LogitsArguments&);
  void (*dsn_logits_folded)(const FoldedLogitsArguments&);
  void (*dsn_window_logits)(const WindowLogitsArguments&);
  void (*embed_pool)(const EmbedPoolArguments&);
  void (*backward_rows)(const BackwardArguments&);
  void (*backward_segments)(const SegmentsBackwardArguments&);
  void (*window_pool)(const WindowPoolArguments&, float* pooled);
  void (*window_pool_backward)(const WindowPoolBackwardArguments&);
  void (*window_pool_words)(const WindowPoolWordsArguments&);
};

// Those that serve this processor (dispatch.cpp).
const Kernels& chosen_kernels();

}  // namespace dendritic_bert
