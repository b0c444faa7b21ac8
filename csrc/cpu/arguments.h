// What the binding hands to a kernel: plain pointers and sizes, no tensor, so that kernel.cpp needs no torch header.
#pragma once

#include <cstdint>

#include "../common/arguments.h"

namespace dendritic_bert {

// Runs body(begin, end, context) over sub-ranges on torch's own threads.
using RangeBody = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain, RangeBody body, void* context);

// The first token (lowest flat index) with an index outside its table, packed as token * 4 + kind; INT64_MAX if none.
enum BadIndexKind : int { bad_id = 0, bad_token_type = 1, bad_position = 2 };

struct Tokens : TokenArrays {           // cu_seqlens holds int64: the binding widens int32
  int64_t positions_stride = 0;         // rows of the context table from one token type to the next
  int64_t* bad_index = nullptr;

  const int64_t* bounds() const { return static_cast<const int64_t*>(cu_seqlens.data); }
  int64_t row_start(int64_t row) const { return cu_seqlens.data ? bounds()[row] : row * length; }
  int64_t row_length(int64_t row) const { return cu_seqlens.data ? bounds()[row + 1] - bounds()[row] : length; }
};

struct Table {
  const void* word = nullptr;           // [V, H]
  WordType word_type = WordType::float32;
  const float* word_scale = nullptr;    // [V], int8 only
  const float* context = nullptr;       // [K * P] rows of hidden_size floats, context_stride apart
  int64_t context_stride = 0;
  int64_t hidden_size = 0;
  float eps = 0;
  bool centred = false;                 // every row of word and context has mean 0
};

struct Head {
  const float *weight, *bias, *beta_bias, *lateral, *top;
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
  float* logits;                        // [B, C]
  int num_threads;
  ParallelFor parallel_for;
};

// The head folded into the tables, see weights.py. Rows of word and context have `stride` floats, the outputs first.
struct Folded {
  const float* rstd;                    // [K, positions_stride / 16, V, 16]
  const float* word;                    // [V, stride]
  const float* context;                 // [K, positions_stride, stride]
  int64_t stride;
};

struct FoldedArguments {
  Tokens tokens;
  Folded folded;
  Head head;                            // without its weight
  float* logits;                        // [B, C]
  int num_threads;
  ParallelFor parallel_for;
};

struct ForwardArguments {
  Tokens tokens;
  Table table;
  Dropout dropout;
  const float *ln_weight, *ln_bias;     // [H]
  float *pooled, *pooled_hat;           // [B, H]; pooled_hat is the pooled row before gamma, beta and p_pool
  float* rstd;                          // [tokens.total]
  int num_threads;
  ParallelFor parallel_for;
};

// What a token's gradient is made of, besides its word row.
struct TokenPlace {
  float rstd;
  int32_t row, context, column;
};

struct BackwardArguments {
  Tokens tokens;
  Table table;
  Dropout dropout;
  const float* ln_weight;               // [H]
  const float *grad_pooled, *pooled_hat, *rstd;
  int64_t num_contexts;                 // rows of table.context
  TokenPlace* places;                   // [tokens.total], unmasked tokens only
  float* row_gradient;                  // [B, H padded to 16]
  float *d_ln_weight, *d_ln_bias;       // [H]
  ParallelFor parallel_for;
};

struct IdsBackwardArguments {
  const BackwardArguments& rows_pass;
  // The unmasked tokens by rising id; id u owns [id_start[u], id_start[u + 1]) of sorted_tokens.
  const int32_t* sorted_tokens;
  const int64_t *id_start, *unique_ids;
  int64_t num_unique;
  WordGradient word_gradient;
  void* d_word;                         // rows of the word type: row unique_ids[u] of id u where dense, u where sparse
  float* d_context;                     // [num_contexts, H]
};

// One instruction set's kernels.
struct Kernels {
  const char* name;
  void (*logits)(const LogitsArguments&);
  void (*folded_logits)(const FoldedArguments&);
  void (*forward)(const ForwardArguments&);
  void (*rows_backward)(const BackwardArguments&);
  void (*ids_backward)(const IdsBackwardArguments&);
};

const Kernels& chosen_kernels();        // dispatch.cpp

}  // namespace dendritic_bert
