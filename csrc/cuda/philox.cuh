// Philox 4x32-10 (Salmon et al. 2011) as reference.dropout_keep draws it: counter (channel / 4, column, row, stream).
#pragma once

#include "device.cuh"

enum PhiloxStream : uint32_t { embed_stream = 0, pool_stream = 1 };

__device__ __forceinline__ uint4 philox(uint64_t seed, uint4 counter) {
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t(0xD2511F53u) * counter.x, product1 = uint64_t(0xCD9E8D57u) * counter.z;
    counter = make_uint4(uint32_t(product1 >> 32) ^ counter.y ^ key0, uint32_t(product1),
                         uint32_t(product0 >> 32) ^ counter.w ^ key1, uint32_t(product0));
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// keep[i] = 1 where channel `channel` + i (a multiple of 4, i < 4) of a token survives, else 0.
__device__ __forceinline__ void dropout_keep(uint64_t seed, uint32_t threshold, int channel, int64_t row, int64_t column,
                                             PhiloxStream stream, float* keep) {
  const uint4 words = philox(seed, make_uint4(uint32_t(channel) / 4, uint32_t(column), uint32_t(row), stream));
  keep[0] = words.x >= threshold;
  keep[1] = words.y >= threshold;
  keep[2] = words.z >= threshold;
  keep[3] = words.w >= threshold;
}
