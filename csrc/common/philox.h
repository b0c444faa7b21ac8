// What defines a dropout mask. Philox 4x32-10 (Salmon et al. 2011) turns a key of two words, the seed, and a counter of
// four, (channel / 4, column, row, stream), into four random words, one for each of four neighbouring channels. A
// channel is kept where its word is at least the threshold. Every backend draws the same words: see dropout_keep in
// kernels/reference.py.
#pragma once

#include <cstdint>

namespace dendritic_bert {

// Dropout on the tokens' normalised embeddings, on the pooled rows, whose column is 0, and on window layer j, whose
// stream is window_stream + j.
enum PhiloxStream : uint32_t { embed_stream = 0, pool_stream = 1, window_stream = 2 };

// In each round, words 0 and 2 of the counter are multiplied by these, and then these are added to the key.
constexpr int philox_rounds = 10;
constexpr uint32_t philox_multiplier_0 = 0xD2511F53u, philox_multiplier_2 = 0xCD9E8D57u;
constexpr uint32_t philox_key_step_0 = 0x9E3779B9u, philox_key_step_1 = 0xBB67AE85u;

// A random word is below the threshold with probability p, 0 <= p < 1. This function and the next are static, so that
// no copy of them that is compiled for one instruction set can serve another (csrc/cpu/kernel.cpp).
static inline uint32_t dropout_threshold(double p) { return uint32_t(p * 4294967296.0); }

// What a channel that is kept is multiplied by.
static inline float dropout_scale(double p) { return float(1 / (1 - p)); }

}  // namespace dendritic_bert
