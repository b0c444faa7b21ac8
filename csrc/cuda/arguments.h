// What a launch hands to a kernel: pointers into device memory and sizes, without a header of CUDA or torch.
#pragma once

#include "../common/arguments.h"

namespace dendritic_bert {

struct Tokens : TokenArrays {
  // One int on the device: 0 if cu_seqlens does not rise from 0 to `total`, so that rows may overlap. Null if that
  // cannot be or does not matter.
  const int* cu_seqlens_valid = nullptr;
};

// The embedding tables.
struct Table {
  const void* word = nullptr;  // [V, H]
  WordType word_type = WordType::float32;
  const float* word_scale = nullptr;  // [V], only beside int8 and float8
  const float* context = nullptr;     // [K * P, H]
  int hidden_size = 0;
  float eps = 0;
};

// The dendritic head; the shapes are those of DsnHead in kernels/contract.py.
struct Head {
  const float *weight, *bias, *beta_bias, *lateral, *top;  // beta_bias is null where no LayerNorm is folded in
  int num_labels, num_dendrites;
  Activation activation;
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
  int num_values, channels, radius, num_layers;

  DENDRITIC_BERT_HOST_DEVICE int num_taps() const { return 2 * radius + 1; }
  // The columns on each side that u of the last layer depends on.
  DENDRITIC_BERT_HOST_DEVICE int halo() const { return radius * ((1 << num_layers) - 1); }
  // Of a pooled row: values, then u.
  DENDRITIC_BERT_HOST_DEVICE int columns() const { return num_values + channels; }
};

struct Dropout {
  const int64_t* seed = nullptr;                     // one element on the device; null if there is no dropout
  uint32_t embed_threshold = 0, pool_threshold = 0;  // see common/philox.h
  float embed_scale = 1, pool_scale = 1;
};

// How rows are dealt out to blocks. Short rows share a block and take one warp each; a long row goes to `splits`
// blocks, whose sums the last of them to arrive adds up in the order of the columns.
struct Plan {
  int warps_per_row = 0;  // 1, or all the warps of a block
  int splits = 1;
  float* partial = nullptr;  // [rows, splits, 2 * H + 1]: sums, kept counts, number of tokens
  int* arrived = nullptr;    // [rows], zero before the launch
};

// What a block of dsn_window_logits takes at once, up to `columns` columns, one for each of its threads, of `rows`
// rows; and where its arrays lie in shared memory, in floats from the beginning.
struct WindowTile {
  int columns, rows;
  int u, matrices, parts, totals, gates, entries, bounds, end;
  int stride;  // of a pooled row with the sum of its gates behind it, in whole 16 bytes
};

struct CheckArguments {
  Indices cu_seqlens;  // [rows + 1]
  int64_t rows, total;
  int* is_valid;  // one int: 1 if cu_seqlens rises from 0 to total, else 0
  float* rstd;    // [total], filled with NaN if cu_seqlens is invalid; or null
};

// Of dsn_logits and dsn_token_logits.
struct LogitsArguments {
  Tokens tokens;
  Table table;
  Head head;
  Plan plan;
  float* logits;  // [B, C], or per token [B * L, C] or [T, C]
};

struct WindowArguments {
  Tokens tokens;
  Windows windows;
  Head head;  // weight [outputs, M] where folded, else [outputs, D + M]; no beta_bias
  Plan plan;  // only its splits
  WindowTile tile;
  float* logits;  // [B, C]
};

// The position and token type tables have the dtype of the word table.
struct ContextArguments {
  WordType type;
  const void *position, *token_type;  // [P, H], [K, H]
  int64_t num_types, num_positions;   // of the context; at most those of the tables
  int hidden_size;
  float* context;  // [K * P, H]
};

// Arrays that are not said to be float have the dtype of the word table, here and below.
struct ForwardArguments {
  Tokens tokens;
  Table table;
  Dropout dropout;
  Plan plan;
  const void *ln_weight, *ln_bias;  // [H]
  void* pooled;                     // [B, H]
  float* pooled_hat;                // [B, H], the pooled row before gamma, beta and p_pool
  float* rstd;                      // [tokens.total], 0 for masked tokens; not written if cu_seqlens is invalid
};

// LayerNorm's backward as a * G - c * e + d, see embed_pool_backward.cu; `row` is negative if the token is not valid.
struct alignas(16) TokenGradient {
  float a, c, d;
  int32_t row, column, id, context, unused;
};

struct BackwardArguments {
  Tokens tokens;
  Table table;
  Dropout dropout;
  Plan plan;
  const void* ln_weight;              // [H]
  const void* grad_pooled;            // [B, H]
  const float* pooled_hat;            // [B, H]
  float* row_gradient;                // [B, H]: G of every row; null if no segment sums follow
  float *weight_terms, *bias_terms;   // [B, H]: what each row adds to the gradients of gamma and beta
  TokenGradient* token_gradient;      // [tokens.total]; null if no segment sums follow
  int32_t *word_keys, *context_keys;  // [tokens.total]: rows of the tables; V and K * P if not valid
  float *d_word, *d_context;          // [V, H] and [K * P, H], zero before the launch, added to by atomics; or null
};

// Sums of token gradients over segments: tokens of equal keys, which `order` has brought together.
struct SegmentArguments {
  Table table;
  Dropout dropout;
  const float* row_gradient;            // [B, H]
  const TokenGradient* token_gradient;  // [num_tokens]
  const int32_t* keys;                  // [num_tokens], sorted; from num_keys on the tokens are not valid
  const int64_t* order;                 // [num_tokens]: the token of each key
  const int64_t* target;                // [num_tokens]: the row of `sums` for the segment; null if it is the key
  int64_t num_tokens, num_keys;
  float* partial;  // [2 * chunks, H]: the parts of segments that cross the edge of a chunk
  WordType type;   // of the sums
  void* sums;      // [*, H]
};

}  // namespace dendritic_bert
