// Columns of a strip, in panels of 16 channels as in window_layers.h: what inference and training both do with those of
// u, and training with those of h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"
#include "window_layers.h"
#include "window_strip.h"

namespace dendritic_bert {
namespace {

constexpr float gate_limit = 8.0f;  // GATE_LIMIT of kernels/contract.py

// g of the gate's logits.
inline Vec gate_of(Vec logit) { return exponential(at_most(gate_limit, at_least(-gate_limit, logit))); }

// dots[j] = <weight, column j>, for group_size columns from `columns` on.
inline void multiply_columns(const float* columns, int64_t panel_stride, const float* weight, int64_t channels,
                             float* dots) {
  Vec total[group_size];
#pragma GCC unroll 8
  for (int j = 0; j < group_size; ++j) total[j] = broadcast(0);
  for (int64_t o = 0; o < channels; o += lanes) {
    const Vec w = load(weight + o);
    const float* of_panel = columns + o / panel * panel_stride + o % panel;
#pragma GCC unroll 8
    for (int j = 0; j < group_size; ++j) total[j] += w * load(of_panel + j * panel);
  }
  sum_lanes(total, dots);
}

// sums += the sum over columns [begin, end), each times its weight. The sums of two panels do not wait for one another:
// those of one vector alone would take four cycles a token. Each call has sums of its own, since the roundings of one
// long sum add up: over 200,000 equal tokens they came to 0.01 of a mean of 5.
template <int num_panels>
inline void add_panels(const float* u, int64_t panel_stride, const float* weight, int64_t begin, int64_t end,
                       float* sums) {
  constexpr int num_vectors = num_panels * panel_vectors;
  Vec total[num_vectors];
  for (int v = 0; v < num_vectors; ++v) total[v] = broadcast(0);
  for (int64_t c = begin; c < end; ++c) {
    const Vec g = broadcast(weight[c]);
    for (int v = 0; v < num_vectors; ++v)
      total[v] += g * load(u + v / panel_vectors * panel_stride + c * panel + v % panel_vectors * lanes);
  }
  for (int v = 0; v < num_vectors; ++v) store(sums + v * lanes, load(sums + v * lanes) + total[v]);
}
constexpr int64_t most_columns_summed = 256;  // as many as embed_pool adds up in a split
inline void add_columns(const float* u, int64_t panel_stride, const float* weight, int64_t channels, int64_t begin,
                        int64_t end, float* sums) {
  for (int64_t first = begin; first < end; first += most_columns_summed) {
    const int64_t last = std::min(end, first + most_columns_summed);
    int64_t o = 0;
    for (; o + 2 * panel <= channels; o += 2 * panel)
      add_panels<2>(u + o / panel * panel_stride, panel_stride, weight, first, last, sums + o);
    if (o < channels) add_panels<1>(u + o / panel * panel_stride, panel_stride, weight, first, last, sums + o);
  }
}

}  // namespace
}  // namespace dendritic_bert
