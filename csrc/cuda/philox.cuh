// Draws dropout masks, as common/philox.h defines them.
#pragma once

#include "../common/philox.h"
#include "rows.cuh"

namespace dendritic_bert {

__device__ __forceinline__ uint4 philox(uint64_t seed, uint4 counter) {
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
#pragma unroll
  for (int round = 0; round < philox_rounds; ++round) {
    const uint64_t product0 = uint64_t(philox_multiplier_0) * counter.x;
    const uint64_t product2 = uint64_t(philox_multiplier_2) * counter.z;
    counter = make_uint4(uint32_t(product2 >> 32) ^ counter.y ^ key0, uint32_t(product2),
                         uint32_t(product0 >> 32) ^ counter.w ^ key1, uint32_t(product0));
    key0 += philox_key_step_0;
    key1 += philox_key_step_1;
  }
  return counter;
}

// Sets keep[i], i < 4, to 1 if channel + i is kept and to 0 if it is dropped; `channel` is a multiple of 4.
__device__ __forceinline__ void draw_mask(uint64_t seed, uint32_t threshold, int channel, int64_t row, int64_t column,
                                          PhiloxStream stream, float* keep) {
  const uint4 words = philox(seed, make_uint4(uint32_t(channel) / 4, uint32_t(column), uint32_t(row), stream));
  keep[0] = words.x >= threshold;
  keep[1] = words.y >= threshold;
  keep[2] = words.z >= threshold;
  keep[3] = words.w >= threshold;
}

// The mask of one token for the channels of this lane.
template <class S>
__device__ __forceinline__ void draw_token_mask(const Dropout& dropout, uint64_t seed, int first_channel, int64_t row,
                                                int64_t column, float (&keep)[S::values]) {
#pragma unroll
  for (int i = 0; i < S::values; i += 4)
    draw_mask(seed, dropout.embed_threshold, channel_of<S>(first_channel, i / 8) + i % 8, row, column, embed_stream,
              keep + i);
}

}  // namespace dendritic_bert
