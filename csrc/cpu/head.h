// The last step of inference: the main layer and the dendrites as one matrix product with pooled rows that are still in
// L1, then the dendrites' cascade.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "simd.h"

namespace dendritic_bert {
namespace {

constexpr int head_rows = 4;  // that share each load of a weight vector

inline float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::sigmoid: return 1.0f / (1.0f + std::exp(-x));
    case Activation::tanh: return std::tanh(x);
    case Activation::relu: return x > 0 ? x : (x == x ? 0.0f : x);  // of NaN it is NaN, as in torch
    default: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
  }
}

// z[r][o] = <weight[o], pooled[r]> + bias[o] for num_outputs outputs from `first` on and head_rows rows.
template <int num_outputs>
inline void multiply_outputs(const Head& head, int64_t hidden_size, const float* const (&row)[head_rows], int rows,
                             int64_t first, float* z) {
  // All sums are taken by the tree of sum_lanes, so that an output has the same bits whichever it is taken with.
  constexpr int num_sums = std::max(num_outputs * head_rows, group_size);
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels, full = hidden_size / lanes * lanes;
  const int tail = int(hidden_size - full);
  const float* weight = head.weight + first * hidden_size;
  Vec total[num_sums];
#pragma GCC unroll 16
  for (Vec& t : total) t = broadcast(0);
  const auto add_products = [&](auto load_lanes, int64_t h) __attribute__((always_inline)) {
    Vec x[head_rows];
#pragma GCC unroll 4
    for (int r = 0; r < head_rows; ++r) x[r] = load_lanes(row[r] + h);
#pragma GCC unroll 4
    for (int o = 0; o < num_outputs; ++o) {
      const Vec w = load_lanes(weight + o * hidden_size + h);
#pragma GCC unroll 4
      for (int r = 0; r < head_rows; ++r) total[o * head_rows + r] += w * x[r];
    }
  };
  for (int64_t h = 0; h < full; h += lanes) add_products([](const float* p) { return load(p); }, h);
  if (tail) add_products([tail](const float* p) { return load_partial(p, tail); }, full);
  float sums[num_sums];
  for (int i = 0; i < num_sums; i += group_size) sum_lanes(total + i, sums + i);
  for (int r = 0; r < rows; ++r)
    for (int o = 0; o < num_outputs; ++o) z[r * outputs + first + o] = sums[o * head_rows + r] + head.bias[first + o];
}

// The same for every output and r < rows <= head_rows. Outputs that are taken together share the loads of the rows:
// four where there are 32 registers, 16 of which then hold sums, and two elsewhere.
inline void multiply_head(const Head& head, int64_t hidden_size, const float* pooled, int64_t stride, int rows,
                          float* z) {
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels;
  const float* row[head_rows];
  for (int r = 0; r < head_rows; ++r) row[r] = pooled + (r < rows ? r : 0) * stride;
  int64_t o = 0;
  if constexpr (lanes == 16)
    for (; o + 4 <= outputs; o += 4) multiply_outputs<4>(head, hidden_size, row, rows, o, z);
  for (; o + 2 <= outputs; o += 2) multiply_outputs<2>(head, hidden_size, row, rows, o, z);
  if (o < outputs) multiply_outputs<1>(head, hidden_size, row, rows, o, z);
}

// The logits of one row. z holds y and then A_k pooled + b_k of every dendrite k, which become the activations.
inline void run_cascade(const Head& head, float* z, float* logits) {
  const int64_t labels = head.num_labels, dendrites = head.num_dendrites;
  for (int64_t k = 0; k < dendrites; ++k) {
    float* a = z + (1 + k) * labels;
    for (int64_t j = 0; j < k; ++j)
      for (int64_t c = 0; c < labels; ++c)
        a[c] += head.lateral[(k * dendrites + j) * labels + c] * z[(1 + j) * labels + c];
    for (int64_t c = 0; c < labels; ++c) a[c] = activate(head.activation, a[c]);
  }
  for (int64_t c = 0; c < labels; ++c) {
    float y = z[c];
    for (int64_t k = 0; k < dendrites; ++k) y += head.top[k * labels + c] * z[(1 + k) * labels + c];
    logits[c] = y;
  }
}

}  // namespace
}  // namespace dendritic_bert
