// The LayerNorm of tokens, up to gamma and beta: a group of lanes holds the embedding sum e of `unroll` tokens, and
// what is needed of each is the centred e and rstd = 1 / sqrt(mean(e^2) + eps). Prepared tables are centred, and so is
// their sum: then there is no mean to find and none to subtract.
#pragma once

#include "rows.cuh"

namespace dendritic_bert {

// Sums over the lanes of a group for several tokens at once: at each halving a lane gives half of its sums away and
// keeps the other half, so that lane l ends with the sum of token l / (lanes / tokens). Four tokens over 16 lanes take
// 5 shuffles where one after another they would take 16, and what follows is computed once for all four.
template <class S>
__device__ __forceinline__ float sum_over_lanes(float (&x)[S::unroll]) {
  const int lane = threadIdx.x % 32;
  int distance = S::lanes / 2;
#pragma unroll
  for (int n = S::unroll / 2; n > 0; n /= 2, distance /= 2) {
    const bool upper = lane & distance;
#pragma unroll
    for (int u = 0; u < n; ++u) {
      const float given = upper ? x[u] : x[u + n], own = upper ? x[u + n] : x[u];
      x[u] = own + __shfl_xor_sync(all_lanes, given, distance);
    }
  }
#pragma unroll
  for (; distance > 0; distance /= 2) x[0] += __shfl_xor_sync(all_lanes, x[0], distance);
  return x[0];
}

// The number, within its group, of the token whose sum this lane has.
template <class S>
__device__ __forceinline__ int owned_token() {
  return int(threadIdx.x) % S::lanes / (S::lanes / S::unroll);
}

// The sum of token u of the group, for every lane of the group.
template <class S>
__device__ __forceinline__ float from_owner(float x, int u) {
  return __shfl_sync(all_lanes, x, u * (S::lanes / S::unroll), S::lanes);
}

// If a row is wider than the registers of a warp, each warp of the block holds a slice of it, all warps walk the same
// tokens and their sums meet in shared memory. `exchange` holds one float for each lane of the block.
template <class S>
__device__ __forceinline__ float sum_over_slices(float x, int slices, float* exchange) {
  if (S::width != Width::any || slices == 1) return x;
  exchange[threadIdx.x] = x;
  __syncthreads();
  float total = 0;
  for (int s = 0; s < slices; ++s) total += exchange[s * 32 + threadIdx.x % 32];
  __syncthreads();
  return total;
}

// Of the token that this lane owns; the mean is 0 if the tables are centred.
struct Moments {
  float mean = 0, rstd = 0;
};

// Gathers and centres e of the group's `unroll` tokens, which begin with `first_token` of the list.
template <class Word, class S, bool centred>
__device__ __forceinline__ Moments normalise(const Table& table, const TokenList& list, int first_token,
                                             int first_channel, int slices, float* exchange,
                                             float (&e)[S::unroll][S::values]) {
  const float inverse = 1.0f / float(S::width == Width::exact ? S::channels : table.hidden_size);
  float total[S::unroll];
  Moments moments;
#pragma unroll
  for (int u = 0; u < S::unroll; ++u) {
    const float scale = has_scale<Word> ? list.scale[first_token + u] : 1.0f;
    embed<S, Word>(table, list.rows[first_token + u], scale, first_channel, e[u]);
  }
  if constexpr (!centred) {
#pragma unroll
    for (int u = 0; u < S::unroll; ++u) {
      total[u] = 0;
#pragma unroll
      for (int i = 0; i < S::values; ++i) total[u] += e[u][i];
    }
    moments.mean = inverse * sum_over_slices<S>(sum_over_lanes<S>(total), slices, exchange);
#pragma unroll
    for (int u = 0; u < S::unroll; ++u) {
      const float mean = from_owner<S>(moments.mean, u);
#pragma unroll
      for (int i = 0; i < S::values; ++i) {
        const int channel = channel_of<S>(first_channel, i / 8) + i % 8;
        if (S::width == Width::exact || channel < table.hidden_size) e[u][i] -= mean;
      }
    }
  }
#pragma unroll
  for (int u = 0; u < S::unroll; ++u) {
    total[u] = 0;
#pragma unroll
    for (int i = 0; i < S::values; ++i) total[u] = fmaf(e[u][i], e[u][i], total[u]);
  }
  moments.rstd =
      reciprocal_sqrt(fmaf(sum_over_slices<S>(sum_over_lanes<S>(total), slices, exchange), inverse, table.eps));
  return moments;
}

}  // namespace dendritic_bert
