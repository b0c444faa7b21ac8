// Philox 4x32-10 (Salmon et al. 2011) as reference.dropout_keep draws it: counter (channel / 4, column, row, stream).
#pragma once

#include <cstdint>

namespace {

enum PhiloxStream : uint32_t { embed_stream = 0, pool_stream = 1 };

// keep[i] = 1 where channel i of a token survives dropout with probability p, else 0. keep holds hidden_size rounded
// up to a multiple of 4.
inline void dropout_keep(uint64_t seed, int64_t row, int64_t column, PhiloxStream stream, double p,
                         int64_t hidden_size, float* keep) {
  const uint32_t threshold = uint32_t(p * 4294967296.0);
  const uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  for (int64_t block = 0; block < (hidden_size + 3) / 4; ++block) {
    uint32_t c0 = uint32_t(block), c1 = uint32_t(column), c2 = uint32_t(row), c3 = stream, k0 = key0, k1 = key1;
    for (int round = 0; round < 10; ++round) {
      const uint64_t product0 = uint64_t(0xD2511F53u) * c0, product1 = uint64_t(0xCD9E8D57u) * c2;
      c0 = uint32_t(product1 >> 32) ^ c1 ^ k0;
      c2 = uint32_t(product0 >> 32) ^ c3 ^ k1;
      c1 = uint32_t(product1);
      c3 = uint32_t(product0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    keep[4 * block] = c0 >= threshold;
    keep[4 * block + 1] = c1 >= threshold;
    keep[4 * block + 2] = c2 >= threshold;
    keep[4 * block + 3] = c3 >= threshold;
  }
}

}  // namespace
