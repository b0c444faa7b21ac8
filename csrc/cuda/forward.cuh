// The two forward kernels, ids to logits and ids to pooled rows. Top to bottom: a warp finds its share of a row, sums
// rstd * e over it, the block adds its warps up, the last block of a long row adds the blocks up, and the epilogue
// finishes the row while it is still in shared memory. Nothing but ids is read per token beside the two table rows.
//
// What makes it fast. The numbers are instructions a token of the inner loop at H = 128 in bfloat16 on sm_90, as
// bench/analysis/cuda_resources.py counts them in the compiled kernel: 22.6, and so many more where the trick alone is taken out.
//   - 16 lanes hold a row, in 16-byte loads, so that a warp takes two tokens at once (22.9: half of what H = 256 takes);
//   - four tokens a group in flight: 12 loads hide one another's latency, and the four share addresses, `rsqrt` and the
//     sums over lanes (4.6, of which 2.2 are the sums);
//   - inference reads centred tables: the LayerNorm has no mean to find and none to subtract (10.6; 60 of 185 at H = 768);
//   - gamma, beta and the division by the count leave the loop: once a row, or folded into the head (8.0);
//   - the context, position + type, is one table of float32: nothing to unpack (3.5), and read from L1 mostly, where every
//     row of a batch finds it;
//   - bfloat16 is unpacked by a shift or a mask (2.0), int8 by the conversion itself (4.0);
//   - a lane's place is added to the tables' pointers once: a row's address is one wide multiply-add (2.0);
//   - padding is squeezed out of the list of tokens before anything is gathered: what is masked costs its mask and id.
//
// Throughout, Word is the type of the word table and S the Shape (rows.cuh) in which a warp's registers hold rows. A block
// is four warps, which share one row or, where rows are short and many, take one each; blockIdx.x counts the blocks of
// rows, blockIdx.y the splits of a row that is too long for one block (plan.h).
#pragma once

#include "head.cuh"
#include "philox.cuh"
#include "plan.h"
#include "rows.cuh"

template <class S> constexpr int max_warps = S::width == Width::any ? max_slices : block_warps;
template <class S> constexpr int max_threads = 32 * max_warps<S>;

// The warps that hold one row between them: 1, or for rows beyond a warp's registers several.
template <class S>
__host__ __device__ constexpr int slices_of(int hidden_size) {
  return S::width == Width::any ? (hidden_size + S::channels - 1) / S::channels : 1;
}

// Shared memory of a block: `writers` sums of H channels for each of its rows, added up into the first of them.
struct BlockSums {
  float *sums, *kept;  // [rows * writers, stride]; kept only with dropout: how many tokens kept a channel
  float* count;        // [rows * writers] tokens; NaN where a token does not fit its table, which makes the row NaN
  int rows, writers, stride;
};

// This warp's share: every column_step-th column of [first_column, end), channels from first_channel on.
struct Share {
  RowRange range;
  int64_t row, first_column, end;
  int column_step, first_channel, slices, slot;
};

template <class S>
__device__ __forceinline__ Share share_of_warp(const Tokens& tokens, const Plan& plan, int hidden_size) {
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32, in_row = warp % plan.warps_per_row;
  Share share;
  share.row = int64_t(blockIdx.x) * (warps / plan.warps_per_row) + warp / plan.warps_per_row;
  share.range = row_range(tokens, share.row);
  const int64_t length = share.range.length;
  share.slices = slices_of<S>(hidden_size);
  const bool sliced = share.slices > 1;
  share.first_channel = sliced ? in_row * S::channels : 0;
  share.slot = sliced ? 0 : warp;
  // Neighbouring columns go to different warps: right padding leaves all of them the same work.
  share.column_step = sliced ? 1 : plan.warps_per_row;
  share.first_column = length * blockIdx.y / plan.splits + (sliced ? 0 : in_row);
  share.end = length * (blockIdx.y + 1) / plan.splits;
  return share;
}

// Leaves out the columns before `first`, which an earlier row holds too.
__device__ __forceinline__ void start_at(int64_t first, Share& share) {
  if (first <= share.first_column) return;
  const int64_t step = share.column_step;
  share.first_column += (first - share.first_column + step - 1) / step * step;
}

template <class S>
struct RowSum {
  float sum[S::values] = {}, kept[S::values] = {}, count = 0;
};

// The dropout mask of a token's channels into `keep`.
template <class S>
__device__ __forceinline__ void token_mask(const Dropout& dropout, uint64_t seed, int first, int64_t row, int64_t column,
                                           float (&keep)[S::values]) {
#pragma unroll
  for (int i = 0; i < S::values; i += 4)
    dropout_keep(seed, dropout.embed_threshold, channel_of<S>(first, i / 8) + i % 8, row, column, embed_stream, keep + i);
}

// Of the token this lane owns; the mean is 0 where the tables are centred.
struct Moments {
  float mean = 0, rstd = 0;
};

// e of `unroll` tokens a group, centred, and their moments.
template <class Word, class S, bool centred>
__device__ __forceinline__ Moments normalise(const Table& table, const TokenList& list, int first_token, const Share& share,
                                           float* exchange, float (&e)[S::unroll][S::values]) {
  const float inverse = 1.0f / float(S::width == Width::exact ? S::channels : table.hidden_size);
  float total[S::unroll];
  Moments moments;
#pragma unroll
  for (int u = 0; u < S::unroll; ++u) {
    const float scale = has_scale<Word> ? list.scale[first_token + u] : 1.0f;
    embed<S, Word>(table, list.rows[first_token + u], scale, share.first_channel, e[u]);
  }
  if constexpr (!centred) {
#pragma unroll
    for (int u = 0; u < S::unroll; ++u) {
      total[u] = 0;
#pragma unroll
      for (int i = 0; i < S::values; ++i) total[u] += e[u][i];
    }
    moments.mean = inverse * sum_over_slices<S>(sum_over_lanes<S>(total), share.slices, exchange);
#pragma unroll
    for (int u = 0; u < S::unroll; ++u) {
      const float m = from_owner<S>(moments.mean, u);
#pragma unroll
      for (int i = 0; i < S::values; ++i)
        if (S::width == Width::exact || channel_of<S>(share.first_channel, i / 8) + i % 8 < table.hidden_size) e[u][i] -= m;
    }
  }
#pragma unroll
  for (int u = 0; u < S::unroll; ++u) {
    total[u] = 0;
#pragma unroll
    for (int i = 0; i < S::values; ++i) total[u] = fmaf(e[u][i], e[u][i], total[u]);
  }
  moments.rstd = reciprocal_sqrt(
      fmaf(sum_over_slices<S>(sum_over_lanes<S>(total), share.slices, exchange), inverse, table.eps));
  return moments;
}

// The hot loop. Arguments is LogitsArguments, or ForwardArguments for training.
template <class Word, class S, bool training, class Arguments>
__device__ __forceinline__ void pool(const Arguments& arguments, const Share& share, TokenList& list, float* exchange,
                                     RowSum<S>& row) {
  const int lane = threadIdx.x % 32, group = lane / S::lanes;
  const Table table = at_lane<S, Word>(arguments.table, share.first_channel);
  bool drop = false, bad = share.range.bad, sound = true, keeps_rstd = false;
  uint64_t seed = 0;
  if constexpr (training) {
    sound = is_sound(arguments.tokens);
    keeps_rstd = sound && lane % (S::lanes / S::unroll) == 0 && share.first_channel == 0;
    if (bad && sound)
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
    if (column < end) token = read_token(arguments.tokens, share.range, column);
    if constexpr (training)
      if (sound && column < end && !token.kept) arguments.rstd[share.range.begin + column] = 0;
    bad |= token.bad;
    const int count = fill<has_scale<Word>>(list, token, column, table.word_scale);
    row.count += float(count);
    for (int first = 0; first < count; first += S::step) {
      const int mine = first + group * S::unroll;
      float e[S::unroll][S::values];
      float rstd = normalise<Word, S, !training>(table, list, mine, share, exchange, e).rstd;
      const bool live = mine + owned_token<S>() < count;
      if constexpr (training)
        if (keeps_rstd && live)
          arguments.rstd[share.range.begin + list.column[mine + owned_token<S>()]] = rstd;
      rstd = live ? rstd : 0;  // the list ends in copies of its first token
#pragma unroll
      for (int u = 0; u < S::unroll; ++u) {
        const float r = from_owner<S>(rstd, u);
        if constexpr (training) {
          if (drop) {
            float keep[S::values];
            token_mask<S>(arguments.dropout, seed, share.first_channel, share.row, list.column[mine + u], keep);
#pragma unroll
            for (int i = 0; i < S::values; ++i) {
              row.sum[i] = fmaf(e[u][i], r * keep[i], row.sum[i]);
              row.kept[i] += mine + u < count ? keep[i] : 0.0f;
            }
            continue;
          }
        }
#pragma unroll
        for (int i = 0; i < S::values; ++i) row.sum[i] = fmaf(e[u][i], r, row.sum[i]);
      }
    }
  }
  if (__any_sync(all_lanes, bad)) row.count = NAN;
}

// This lane's channels into shared memory, the groups of the warp added up before.
template <class S>
__device__ __forceinline__ void store_channels(float (&x)[S::values], int first, int hidden_size, float* to) {
#pragma unroll
  for (int i = 0; i < S::values; ++i)
#pragma unroll
    for (int distance = S::lanes; distance < 32; distance *= 2) x[i] += __shfl_xor_sync(all_lanes, x[i], distance);
  if (int(threadIdx.x) % 32 >= S::lanes) return;
#pragma unroll
  for (int v = 0; v < S::vectors; ++v) {
    const int channel = channel_of<S>(first, v);
    if constexpr (S::width == Width::any) {
#pragma unroll
      for (int i = 0; i < 8; ++i) if (channel + i < hidden_size) to[channel + i] = x[8 * v + i];
    } else if (S::width == Width::exact || channel < hidden_size) {
      float4* const to4 = reinterpret_cast<float4*>(to + channel);
      to4[0] = make_float4(x[8 * v], x[8 * v + 1], x[8 * v + 2], x[8 * v + 3]);
      to4[1] = make_float4(x[8 * v + 4], x[8 * v + 5], x[8 * v + 6], x[8 * v + 7]);
    }
  }
}

// Pools the block's rows into shared memory. All threads may read the sums afterwards.
template <class Word, class S, bool training, class Arguments>
__device__ __forceinline__ void pool_block(const Arguments& arguments, BlockSums& block) {
  __shared__ TokenList lists[max_warps<S>];
  __shared__ float counts[max_warps<S>];
  __shared__ float exchange[S::width == Width::any ? max_threads<S> : 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, hidden_size = arguments.table.hidden_size;
  const Share share = share_of_warp<S>(arguments.tokens, arguments.plan, hidden_size);
  RowSum<S> row;
  pool<Word, S, training>(arguments, share, lists[warp], exchange, row);
  block.count = counts;
  store_channels<S>(row.sum, share.first_channel, hidden_size, block.sums + share.slot * block.stride);
  if (training && block.kept)
    store_channels<S>(row.kept, share.first_channel, hidden_size, block.kept + share.slot * block.stride);
  if (lane == 0 && share.first_channel == 0) counts[share.slot] = row.count;
  __syncthreads();
  if (block.writers == 1) return;
  for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) {  // several writers are the warps of the only row
    for (int w = 1; w < block.writers; ++w) block.sums[h] += block.sums[w * block.stride + h];
    if (training && block.kept)
      for (int w = 1; w < block.writers; ++w) block.kept[h] += block.kept[w * block.stride + h];
  }
  if (threadIdx.x == 0) for (int w = 1; w < block.writers; ++w) counts[0] += counts[w];
  __syncthreads();
}

// The sums of a row that several blocks share: each leaves its own in global memory, and the last to arrive adds them up
// in the order of the columns, whichever it is. False for the others, which are done.
__device__ __forceinline__ bool combine_splits(const Plan& plan, const BlockSums& block, int hidden_size) {
  if (plan.splits == 1) return true;
  __shared__ bool last;
  const int64_t row = blockIdx.x, stride = 2 * int64_t(hidden_size) + 1;
  float* const mine = plan.partial + (row * plan.splits + blockIdx.y) * stride;
  for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) {
    mine[h] = block.sums[h];
    if (block.kept) mine[hidden_size + h] = block.kept[h];
  }
  if (threadIdx.x == 0) mine[2 * hidden_size] = block.count[0];
  // What every thread has written is in L2 before the block counts itself, and nothing is read back before that; __ldcg
  // reads from L2, since L1 may hold what was there before.
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
  if (threadIdx.x == 0) block.count[0] = total(2 * hidden_size);
  __syncthreads();
  return true;
}

// pooled = sum * scale, and the share of beta it holds: 1 in a mean, the count in a sum, 0 in an empty row.
__device__ __forceinline__ float2 pooling_factors(Pooling pooling, float count) {
  if (count != count) return make_float2(count, count);
  if (pooling == Pooling::sum_all) return make_float2(1, count);
  return make_float2(count > 0 ? 1 / count : 1.0f, count > 0 ? 1.0f : 0.0f);
}

// Where a block's sums lie in its dynamic shared memory; returns the end of them.
template <class S>
__device__ __forceinline__ float* place_sums(const Plan& plan, int hidden_size, bool kept, float* memory, BlockSums& block) {
  const int warps = blockDim.x / 32;
  block.rows = warps / plan.warps_per_row;
  block.writers = slices_of<S>(hidden_size) > 1 ? 1 : plan.warps_per_row;
  block.stride = (hidden_size + 3) / 4 * 4;
  block.sums = memory;
  memory += block.rows * block.writers * block.stride;
  block.kept = kept ? memory : nullptr;
  return kept ? memory + block.rows * block.writers * block.stride : memory;
}

// Ids to logits. Five blocks a multiprocessor leave 96 registers a thread, which hold all the loads of a step; without the
// second number ptxas aims at 72 and keeps 16 bytes a thread in local memory.
template <class Word, class S>
__global__ void __launch_bounds__(max_threads<S>, S::width == Width::any ? 1 : S::values == 8 ? 5 : 4)
    logits_kernel(const LogitsArguments arguments) {
  DYNAMIC_SHARED(memory);
  const int hidden_size = arguments.table.hidden_size, labels = arguments.head.num_labels;
  BlockSums block;
  float* const z = place_sums<S>(arguments.plan, hidden_size, false, reinterpret_cast<float*>(memory), block);
  pool_block<Word, S, false>(arguments, block);
  if (!combine_splits(arguments.plan, block, hidden_size)) return;

  __shared__ float beta_share[head_rows];
  const int64_t first_row = int64_t(blockIdx.x) * block.rows;
  const int64_t rows_left = arguments.tokens.rows - first_row;
  const int rows = rows_left < block.rows ? int(rows_left) : block.rows;
  const int row_stride = block.writers * block.stride, outputs = (1 + arguments.head.num_dendrites) * labels;
  for (int r = 0; r < rows; ++r) {
    const float2 factors = pooling_factors(arguments.tokens.pooling, block.count[r * block.writers]);
    for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) block.sums[r * row_stride + h] *= factors.x;
    if (threadIdx.x == 0) beta_share[r] = factors.y;
  }
  __syncthreads();
  head_products<S::width != Width::any>(arguments.head, hidden_size, block.sums, row_stride, rows, beta_share, z);
  __syncthreads();
  for (int i = threadIdx.x; i < rows * labels; i += blockDim.x)
    arguments.logits[first_row * labels + i] = cascade(arguments.head, i % labels, z + i / labels * outputs);
}

// Ids to pooled rows, for training: gamma, beta and dropout in the epilogue, and what the backward needs. Philox wants
// registers more than the device wants blocks.
template <class Word, class S>
__global__ void __launch_bounds__(max_threads<S>, 1) embed_pool_kernel(const ForwardArguments arguments) {
  DYNAMIC_SHARED(memory);
  const int hidden_size = arguments.table.hidden_size;
  const Dropout& dropout = arguments.dropout;
  const bool drop = dropout.embed_threshold > 0;
  BlockSums block;
  place_sums<S>(arguments.plan, hidden_size, drop, reinterpret_cast<float*>(memory), block);
  pool_block<Word, S, true>(arguments, block);
  if (!combine_splits(arguments.plan, block, hidden_size)) return;

  const int64_t first_row = int64_t(blockIdx.x) * block.rows;
  const uint64_t seed = dropout.seed ? uint64_t(*dropout.seed) : 0;
  for (int r = 0; r < block.rows && first_row + r < arguments.tokens.rows; ++r) {
    const int64_t row = first_row + r;
    const int slot = r * block.writers;
    const float2 factors = pooling_factors(arguments.tokens.pooling, block.count[slot]);
    const float scale = factors.x * dropout.embed_scale;
    for (int h = 4 * threadIdx.x; h < hidden_size; h += 4 * blockDim.x) {
      float keep[4] = {1, 1, 1, 1};
      if (dropout.pool_threshold > 0) dropout_keep(seed, dropout.pool_threshold, h, row, 0, pool_stream, keep);
      for (int i = 0; i < 4 && h + i < hidden_size; ++i) {
        const float hat = block.sums[slot * block.stride + h + i] * scale;
        const float share = drop ? block.kept[slot * block.stride + h + i] * scale : factors.y;
        const float gamma = as_float(static_cast<const Word*>(arguments.ln_weight)[h + i]);
        const float beta = as_float(static_cast<const Word*>(arguments.ln_bias)[h + i]);
        arguments.pooled_hat[row * hidden_size + h + i] = hat;
        store_as(static_cast<Word*>(arguments.pooled) + row * hidden_size + h + i,
                 fmaf(hat, gamma, share * beta) * keep[i] * dropout.pool_scale);
      }
    }
  }
}

// The context table of training, position + token type in float32, one thread a channel. The parameters change at every
// step, but K * L rows are few beside the tokens of a batch.
template <class Word>
__global__ void context_kernel(const ContextArguments arguments) {
  const int64_t size = arguments.num_types * arguments.num_positions * arguments.hidden_size;
  const int64_t type_size = arguments.num_positions * arguments.hidden_size;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x)
    arguments.context[i] = as_float(static_cast<const Word*>(arguments.position)[i % type_size]) +
        as_float(static_cast<const Word*>(arguments.token_type)[i / type_size * arguments.hidden_size + i % arguments.hidden_size]);
}
