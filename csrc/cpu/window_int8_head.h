// The head of dsn_window_logits_int8, which gives the same bits on every processor: sums run in one order in double,
// and a product that enters a sum has two floats as factors, so that it is exact and a fused multiply-add changes
// nothing.
#pragma once

#include <algorithm>
#include <cstdint>

#include "window_int8_arguments.h"

namespace dendritic_bert {
namespace {

// The activation, between two entries of its table; exact for relu. Of NaN it is NaN.
inline float activate_from_table(const float* table, Activation activation, float x) {
  if (x != x) return x;
  if (activation == Activation::relu) return x > 0 ? x : 0.0f;
  const float limit = float(activation_limit), clipped = std::max(-limit, std::min(limit, x));
  const float place = (clipped + limit) * float(activation_steps);
  const int64_t below = std::min(int64_t(place), activation_table_size - 2);
  const float slope = table[below + 1] - table[below], rest = place - float(below);
  const float y = float(double(table[below]) + double(slope) * double(rest));
  return activation == Activation::gelu ? x * y : y;
}

// <weight, in> in four sums, of every fourth product each, which are then added in pairs.
inline double multiply_row(const float* weight, const float* in, int64_t inputs) {
  double total[4] = {};
  int64_t i = 0;
  for (; i + 4 <= inputs; i += 4)
    for (int k = 0; k < 4; ++k) total[k] += double(weight[i + k]) * double(in[i + k]);
  for (int k = 0; i + k < inputs; ++k) total[k] += double(weight[i + k]) * double(in[i + k]);
  return (total[0] + total[1]) + (total[2] + total[3]);
}

// z [outputs] of a pooled row [D + M].
inline void multiply_int8_head(const Int8Windows& windows, const Head& head, const float* pooled, double* z) {
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels, num_values = windows.shape.num_values;
  const bool is_folded = windows.shape.folded;
  const int64_t inputs = windows.shape.channels + (is_folded ? 0 : num_values);
  const float* in = pooled + (is_folded ? num_values : 0);
  for (int64_t o = 0; o < outputs; ++o) {
    z[o] = multiply_row(head.weight + o * inputs, in, inputs) + double(head.bias[o]);
    if (is_folded) z[o] += double(pooled[o]);
  }
}

// The logits of one row from z: y, and then what enters each dendrite. `a` holds (N, C) floats.
inline void run_int8_cascade(const Int8Windows& windows, const Head& head, const double* z, float* a, float* logits) {
  const int64_t labels = head.num_labels, dendrites = head.num_dendrites;
  for (int64_t k = 0; k < dendrites; ++k)
    for (int64_t c = 0; c < labels; ++c) {
      double total = z[(1 + k) * labels + c];
      for (int64_t j = 0; j < k; ++j)
        total += double(head.lateral[(k * dendrites + j) * labels + c]) * double(a[j * labels + c]);
      a[k * labels + c] = activate_from_table(windows.activation_table, head.activation, float(total));
    }
  for (int64_t c = 0; c < labels; ++c) {
    double total = z[c];
    for (int64_t k = 0; k < dendrites; ++k) total += double(head.top[k * labels + c]) * double(a[k * labels + c]);
    logits[c] = float(total);
  }
}

}  // namespace
}  // namespace dendritic_bert
