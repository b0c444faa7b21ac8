// What a launch hands to a kernel: pointers into device memory and sizes, no CUDA and no torch header.
#pragma once

#include <cstdint>

enum class WordType : int { float32, bfloat16, float16, int8, float8_e4m3 };
enum class Pooling : int { mean_masked, mean_all, sum_all };      // the order of reference.POOLINGS
enum class Activation : int { sigmoid, tanh, relu, gelu };        // the order of reference.ACTIVATIONS

// One integer array of either width, read as it is; data is null where the argument is absent.
struct Indices {
  const void* data = nullptr;
  bool is_int64 = false;
};

struct Tokens {
  Indices ids, token_types, positions;
  const void* mask = nullptr;           // [B, L] integers of mask_bytes each, only where the pooling heeds it
  int mask_bytes = 0;
  Indices cu_seqlens;                   // [B + 1], or absent: row b starts at b * length
  const int* sound = nullptr;           // one int on the device: 0 where cu_seqlens does not rise from 0 to total, so that
                                        // rows may overlap; null where that cannot be or does not matter
  int64_t rows = 0, length = 0, total = 0;
  Pooling pooling = Pooling::mean_masked;
  int64_t vocab_size = 0, num_types = 0, num_positions = 0;
};

struct Table {
  const void* word = nullptr;           // [V, H]
  WordType word_type = WordType::float32;
  const float* word_scale = nullptr;    // [V], int8 and float8 only
  const float* context = nullptr;       // [K * P, H]
  int hidden_size = 0;
  float eps = 0;
};

struct Head {
  const float *weight, *bias, *beta_bias, *lateral, *top;
  int num_labels, num_dendrites;
  Activation activation;
};

struct Dropout {
  const int64_t* seed = nullptr;        // one element on the device, or null where both p are 0
  uint32_t embed_threshold = 0, pool_threshold = 0;  // int(p * 2^32): a channel is kept where its word is not below
  float embed_scale = 1, pool_scale = 1;             // 1 / (1 - p)
};

// How rows are dealt out to blocks. Short rows share a block, one warp each; a long row goes to `splits` blocks, whose
// sums the last of them to arrive adds up in the order of the columns.
struct Plan {
  int warps_per_row = 0;                // 1 or all the warps of a block
  int splits = 1;
  float* partial = nullptr;             // [rows, splits, 2 * H + 1]: sums, kept counts, number of tokens
  int* arrived = nullptr;               // [rows], zero before the launch
};

struct SoundArguments {
  Indices cu_seqlens;                   // [rows + 1]
  int64_t rows, total;
  int* sound;                           // one int
  float* rstd;                          // [total], filled with NaN where cu_seqlens is not sound; or null
};

struct LogitsArguments {
  Tokens tokens;
  Table table;
  Head head;
  Plan plan;
  float* logits;                        // [B, C]
};

// Question answering: one row of logits a token.
struct TokenLogitsArguments {
  Tokens tokens;
  Table table;
  Head head;
  Plan plan;
  float* logits;                        // [B * L, C] or [T, C]
};

// The tables' parameters share one dtype, the word table's; the outputs that are not named float32 have it too.
struct ContextArguments {
  WordType type;
  const void *position, *token_type;    // [P, H], [K, H]
  int64_t num_types, num_positions;     // of the context, at most those of the tables
  int hidden_size;
  float* context;                       // [K * P, H]
};

struct ForwardArguments {
  Tokens tokens;
  Table table;
  Dropout dropout;
  Plan plan;
  const void *ln_weight, *ln_bias;      // [H]
  void* pooled;                         // [B, H]
  float* pooled_hat;                    // [B, H], the pooled row before gamma, beta and p_pool
  float* rstd;                          // [tokens.total], 0 for masked tokens; not written where `sound` is 0
};

// LayerNorm's backward as a * G - c * e + d, see backward.cuh; `row` is negative where a token takes no part.
struct alignas(16) TokenGradient {
  float a, c, d;
  int32_t row, column, id, context, unused;
};

struct BackwardArguments {
  Tokens tokens;
  Table table;
  Dropout dropout;
  Plan plan;
  const void* ln_weight;                // [H]
  const void* grad_pooled;              // [B, H]
  const float* pooled_hat;              // [B, H]
  float* row_gradient;                  // [B, H]: G of every row; null where nothing is left to run_sums
  float *weight_terms, *bias_terms;     // [B, H]: what each row adds to the gradients of gamma and beta
  TokenGradient* token_gradient;        // [tokens.total]; null where nothing is left to run_sums
  int32_t *word_keys, *context_keys;    // [tokens.total]: rows of the tables; vocab_size and K * P for no part
  float *d_word, *d_context;            // [V, H] and [K * P, H], zeroed: filled by atomics; or null
};

// Sums of token gradients over runs of equal keys, in the order of `order`, which sorts the tokens by key.
struct RunArguments {
  Table table;
  Dropout dropout;
  const float* row_gradient;            // [B, H]
  const TokenGradient* token_gradient;  // [num_tokens]
  const int32_t* keys;                  // [num_tokens], sorted; from no_part on they take no part
  const int64_t* order;                 // [num_tokens]
  const int64_t* target;                // [num_tokens]: the row of `sums` for each run, or null for the key's own
  int64_t num_tokens, no_part;
  float* partial;                       // [2 * chunks, H]: the parts of runs that cross the edge of a chunk
  WordType type;                        // of the sums
  void* sums;                           // [*, H]
};
