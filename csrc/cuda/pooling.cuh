// The forward pass of a block, from token ids to the sum of its rows, which dsn_logits.cu and embed_pool.cu each finish
// in an epilogue of their own. Top to bottom: a warp sums rstd * e over its share of a row, the block adds up its
// warps, and the last block of a row that is split adds up the splits. Per token, nothing is read but its indices and
// two table rows.
//
// What makes it fast. The numbers are instructions per token of the inner loop at H = 128 in bfloat16 on sm_90, as
// bench/analysis/cuda_resources.py counts them in the compiled kernel: 22.6, and in brackets how many more there are if
// this one measure is left out.
//   - 16 lanes hold a row, in 16-byte loads, so that a warp takes two tokens at once (22.9: half of what H = 256
//     takes).
//   - A group has four tokens in flight: 12 loads hide one another's latency, and the four tokens share addresses,
//     `rsqrt` and the sums over lanes (4.6, of which 2.2 are the sums).
//   - Inference reads centred tables: LayerNorm has no mean to find and none to subtract (10.6; 60 of 185 at H = 768).
//   - gamma, beta and the division by the count leave the loop: they apply once per row, or are folded into the head
//     (8.0).
//   - The context, position + token type, is one table of float32: there is nothing to unpack (3.5), and it is mostly
//     read from L1, where every row of a batch finds it.
//   - bfloat16 is unpacked by a shift or a mask (2.0), int8 by the conversion itself (4.0).
//   - A lane's place is added to the pointers of the tables once: a row's address is one wide multiply-add (2.0).
//   - Padding is squeezed out of the list of tokens before anything is gathered: a masked token costs its mask and its
//     id.
//
// Throughout, Word is the type of the word table and S the Shape (rows.cuh) in which the registers of a warp hold rows.
#pragma once

#include "layer_norm.cuh"
#include "philox.cuh"
#include "warp_share.cuh"

namespace dendritic_bert {

// The sums of a block in shared memory: each of its rows has `writers` sums of H channels, added up into the first of
// them.
struct BlockSums {
  float *sums, *kept;  // [rows * writers, stride]; `kept` only with dropout: how many tokens kept a channel
  float* num_valid;    // [rows * writers]; NaN, and so is the result, if the row or one of its tokens is bad
  int rows, writers, stride;
};

// What a lane has summed of its row.
template <class S>
struct RowSum {
  float sum[S::values] = {}, kept[S::values] = {}, num_valid = 0;
};

// The hot loop: the sum of a warp's share. Arguments is LogitsArguments or, in training, ForwardArguments, and then
// rstd is written for every token, unless cu_seqlens is invalid.
template <class Word, class S, bool training, class Arguments>
__device__ __forceinline__ void sum_tokens(const Arguments& arguments, const WarpShare& share, TokenList& list,
                                           float* exchange, RowSum<S>& row) {
  const int lane = threadIdx.x % 32, group = lane / S::lanes;
  const Table table = move_to_lane<S, Word>(arguments.table, share.first_channel);
  bool drop = false, bad = share.range.bad, bounds_are_valid = true, writes_rstd = false;
  uint64_t seed = 0;
  if constexpr (training) {
    bounds_are_valid = cu_seqlens_is_valid(arguments.tokens);
    writes_rstd = bounds_are_valid && lane % (S::lanes / S::unroll) == 0 && share.first_channel == 0;
    if (bad && bounds_are_valid)
      for (int64_t column = share.first_column + int64_t(lane) * share.column_step; column < share.end;
           column += int64_t(tile_tokens) * share.column_step)
        arguments.rstd[share.range.begin + column] = NAN;
    drop = arguments.dropout.embed_threshold > 0;
    if (drop) seed = uint64_t(*arguments.dropout.seed);
  }
  const int64_t end = bad ? 0 : share.end;
  for (int64_t tile = share.first_column; tile < end; tile += int64_t(tile_tokens) * share.column_step) {
    const int64_t column = tile + int64_t(lane) * share.column_step;
    Token token;
    if (column < end) token = load_token(arguments.tokens, share.range, column);
    if constexpr (training)
      if (bounds_are_valid && column < end && !token.valid) arguments.rstd[share.range.begin + column] = 0;
    bad |= token.bad;
    const int num_valid = fill_list<has_scale<Word>>(list, token, column, table.word_scale);
    row.num_valid += float(num_valid);
    for (int step = 0; step < num_valid; step += S::step) {
      const int first_token = step + group * S::unroll;
      float e[S::unroll][S::values];
      float rstd =
          normalise<Word, S, !training>(table, list, first_token, share.first_channel, share.slices, exchange, e).rstd;
      const bool in_list = first_token + owned_token<S>() < num_valid;
      if constexpr (training)
        if (writes_rstd && in_list)
          arguments.rstd[share.range.begin + list.column[first_token + owned_token<S>()]] = rstd;
      rstd = in_list ? rstd : 0;  // behind its end the list holds copies of its first token
#pragma unroll
      for (int u = 0; u < S::unroll; ++u) {
        const float r = from_owner<S>(rstd, u);
        if constexpr (training) {
          if (drop) {
            float keep[S::values];
            draw_token_mask<S>(
                arguments.dropout, seed, share.first_channel, share.row, list.column[first_token + u], keep);
#pragma unroll
            for (int i = 0; i < S::values; ++i) {
              row.sum[i] = fmaf(e[u][i], r * keep[i], row.sum[i]);
              row.kept[i] += first_token + u < num_valid ? keep[i] : 0.0f;
            }
            continue;
          }
        }
#pragma unroll
        for (int i = 0; i < S::values; ++i) row.sum[i] = fmaf(e[u][i], r, row.sum[i]);
      }
    }
  }
  if (__any_sync(all_lanes, bad)) row.num_valid = NAN;
}

// Adds up the groups of the warp and stores the sums of this lane's channels to shared memory.
template <class S>
__device__ __forceinline__ void store_channels(float (&x)[S::values], int first_channel, int hidden_size, float* to) {
#pragma unroll
  for (int i = 0; i < S::values; ++i)
#pragma unroll
    for (int distance = S::lanes; distance < 32; distance *= 2) x[i] += __shfl_xor_sync(all_lanes, x[i], distance);
  if (int(threadIdx.x) % 32 >= S::lanes) return;
#pragma unroll
  for (int v = 0; v < S::vectors; ++v) {
    const int channel = channel_of<S>(first_channel, v);
    if constexpr (S::width == Width::any) {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (channel + i < hidden_size) to[channel + i] = x[8 * v + i];
    } else if (S::width == Width::exact || channel < hidden_size) {
      float4* const to4 = reinterpret_cast<float4*>(to + channel);
      to4[0] = make_float4(x[8 * v], x[8 * v + 1], x[8 * v + 2], x[8 * v + 3]);
      to4[1] = make_float4(x[8 * v + 4], x[8 * v + 5], x[8 * v + 6], x[8 * v + 7]);
    }
  }
}

// Sums the block's rows into shared memory. All threads may read the sums afterwards.
template <class Word, class S, bool training, class Arguments>
__device__ __forceinline__ void sum_rows(const Arguments& arguments, BlockSums& block) {
  __shared__ TokenList lists[max_warps<S>];
  __shared__ float counts[max_warps<S>];
  __shared__ float exchange[S::width == Width::any ? max_threads<S> : 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, hidden_size = arguments.table.hidden_size;
  const WarpShare share = share_of_warp<S>(arguments.tokens, arguments.plan, hidden_size);
  RowSum<S> row;
  sum_tokens<Word, S, training>(arguments, share, lists[warp], exchange, row);
  block.num_valid = counts;
  store_channels<S>(row.sum, share.first_channel, hidden_size, block.sums + share.slot * block.stride);
  if (training && block.kept)
    store_channels<S>(row.kept, share.first_channel, hidden_size, block.kept + share.slot * block.stride);
  if (lane == 0 && share.first_channel == 0) counts[share.slot] = row.num_valid;
  __syncthreads();
  if (block.writers == 1) return;
  for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) {  // several writers are the warps of the only row
    for (int w = 1; w < block.writers; ++w) block.sums[h] += block.sums[w * block.stride + h];
    if (training && block.kept)
      for (int w = 1; w < block.writers; ++w) block.kept[h] += block.kept[w * block.stride + h];
  }
  if (threadIdx.x == 0)
    for (int w = 1; w < block.writers; ++w) counts[0] += counts[w];
  __syncthreads();
}

// Adds up a row that is split over blocks: each block leaves its sums in global memory, and whichever arrives last adds
// them up in the order of the columns. False for the other blocks, whose work is done.
__device__ __forceinline__ bool combine_splits(const Plan& plan, const BlockSums& block, int hidden_size) {
  if (plan.splits == 1) return true;
  __shared__ bool last;
  const int64_t row = blockIdx.x, stride = 2 * int64_t(hidden_size) + 1;
  float* const own = plan.partial + (row * plan.splits + blockIdx.y) * stride;
  for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) {
    own[h] = block.sums[h];
    if (block.kept) own[hidden_size + h] = block.kept[h];
  }
  if (threadIdx.x == 0) own[2 * hidden_size] = block.num_valid[0];
  // What the threads have written is in L2 before the block counts itself, and nothing is read back before that. __ldcg
  // reads from L2, because L1 may hold what was there before.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(plan.arrived + row, 1) == plan.splits - 1;
  __syncthreads();
  if (!last) return false;
  __threadfence();
  const auto total = [&](int64_t offset) {
    float sum = 0;
    for (int s = 0; s < plan.splits; ++s) sum += __ldcg(plan.partial + (row * plan.splits + s) * stride + offset);
    return sum;
  };
  for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) {
    block.sums[h] = total(h);
    if (block.kept) block.kept[h] = total(hidden_size + h);
  }
  if (threadIdx.x == 0) block.num_valid[0] = total(2 * hidden_size);
  __syncthreads();
  return true;
}

// What turns a sum into the pooled row: the scale of the sum, and how often pooled holds beta, which is once in a mean,
// once per token in a sum, and never in an empty row. NaN passes through.
struct PoolingFactors {
  float scale, beta_share;
};

__device__ __forceinline__ PoolingFactors pooling_factors(Pooling pooling, float num_valid) {
  if (num_valid != num_valid) return {num_valid, num_valid};
  if (pooling == Pooling::sum_all) return {1, num_valid};
  return {num_valid > 0 ? 1 / num_valid : 1.0f, num_valid > 0 ? 1.0f : 0.0f};
}

// Places the sums of a block in its dynamic shared memory and returns where they end.
template <class S>
__device__ __forceinline__ float* place_sums(const Plan& plan, int hidden_size, bool kept, float* memory,
                                             BlockSums& block) {
  const int warps = blockDim.x / 32;
  block.rows = warps / plan.warps_per_row;
  block.writers = slices_of<S>(hidden_size) > 1 ? 1 : plan.warps_per_row;
  block.stride = (hidden_size + 3) / 4 * 4;
  block.sums = memory;
  memory += block.rows * block.writers * block.stride;
  block.kept = kept ? memory : nullptr;
  return kept ? memory + block.rows * block.writers * block.stride : memory;
}

}  // namespace dendritic_bert
