// The last step of inference: the main layer and the dendrites as one matrix product with pooled rows that are still in
// L1, then the dendrites' cascade.
#pragma once

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

// z[r][o] = <weight[o], pooled[r]> + bias[o], for r < rows <= head_rows.
inline void multiply_head(const Head& head, int64_t hidden_size, const float* pooled, int64_t stride, int rows,
                          float* z) {
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels, full = hidden_size / lanes * lanes;
  const int tail = int(hidden_size - full);
  const float* row[head_rows];
  for (int r = 0; r < head_rows; ++r) row[r] = pooled + (r < rows ? r : 0) * stride;
  for (int64_t o = 0; o < outputs; ++o) {
    const float* weight = head.weight + o * hidden_size;
    Vec total[head_rows];
    for (Vec& t : total) t = broadcast(0);
    for (int64_t h = 0; h < full; h += lanes) {
      const Vec w = load(weight + h);
      for (int r = 0; r < head_rows; ++r) total[r] += w * load(row[r] + h);
    }
    if (tail) {
      const Vec w = load_partial(weight + full, tail);
      for (int r = 0; r < head_rows; ++r) total[r] += w * load(row[r] + full);
    }
    for (int r = 0; r < rows; ++r) z[r * outputs + o] = sum_lanes(total[r]) + head.bias[o];
  }
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
