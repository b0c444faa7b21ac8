// What the binding passes to the kernel of dsn_window_logits_int8; kernels/contract.py's QuantisedWindowedDsn.
#pragma once

#include "arguments.h"

namespace dendritic_bert {

constexpr int64_t longest_int8_row = int64_t(1) << 20;    // LONGEST_INT8_ROW of kernels/contract.py
constexpr int gate_step_bits = 8, activation_steps = 64;  // log2 of GATE_STEPS, and ACTIVATION_STEPS
constexpr int gate_limit = 8, activation_limit = 16;      // GATE_LIMIT and ACTIVATION_LIMIT
constexpr int64_t gate_table_size = 2 * gate_limit << gate_step_bits | 1;
constexpr int64_t activation_table_size = 2 * activation_limit * activation_steps + 1;

struct Int8Windows {
  Windows shape;                  // the sizes alone
  const int16_t* values;          // [K, V, D]
  const int32_t* gate;            // [K, V]; null for a plain mean
  const int16_t* taps;            // [K, V, R, M]
  const int32_t* bias;            // [J, M]
  const int16_t* input_scale;     // [J - 1, M]
  const int8_t* weight;           // [J - 1, R, M / 4, M, 4]
  const int32_t* output_shift;    // [J - 1, M]
  const int16_t* output_scale;    // [J - 1, M]
  const int16_t* gate_weight;     // [M]
  const int32_t* gate_table;      // [gate_table_size]
  const float* pooled_scale;      // [D + M]
  const float* activation_table;  // [activation_table_size], empty for relu
  int gate_bits;
};

// What a layer does to the sums of a block of outputs. The scales are in the order of a block (window_int8_simd.h).
struct Int8Output {
  const int32_t* shift;
  const int16_t *scale, *next_input_scale;
};

struct Int8LogitsArguments {
  Tokens tokens;
  Int8Windows windows;
  Head head;      // weight [outputs, M] where folded, else [outputs, D + M]; no beta_bias
  float* logits;  // [B, C]
  ParallelFor parallel_for;
};

// The kernel of one instruction set. window_int8.cpp is compiled for more of them than kernel.cpp.
struct Int8Kernel {
  const char* name;
  void (*dsn_window_logits_int8)(const Int8LogitsArguments&);
};

// The one that serves this processor (window_int8_dispatch.cpp).
const Int8Kernel& chosen_int8_kernel();
// From now on none above the instruction set of this name; for tests.
void limit_int8_kernel(const char* at_most);

}  // namespace dendritic_bert
