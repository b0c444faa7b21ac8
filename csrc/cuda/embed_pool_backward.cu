// The first part of embed_pool's backward, in the order of rows. With
//
//   G = gamma * g * scale    g the gradient of the pooled row, scale what pooling and dropout multiply a token by,
//   m                        the dropout mask of a token, and
//   e                        its embedding sum,
//
// LayerNorm's backward is
//
//   d e = rstd * (m G - mean(m G)) - rstd^3 * mean(m G * centred e) * centred e
//       = a * m G - c * e + d       a = rstd, c = rstd^3 * mean(m G * centred e), d = c * mean(e) - a * mean(m G)
//
// so that three floats per token are all that has to be kept. The kernel computes G, the terms of each row for the
// gradients of gamma and beta, and (a, c, d) of each token. What follows has two forms:
//   - Atomics add d e to the gradients of the tables at once, in whatever order the device chooses. If both tables are
//     served so, G and (a, c, d) stay in registers, which saves 40 bytes per token.
//   - sorted_gradient.cu sums d e over tokens that are sorted by id, in an order that depends on shapes and ids alone.
//
// If cu_seqlens does not rise from 0 to the number of tokens, rows may share tokens: then G is NaN, and a token that
// several rows hold enters the gradients once, with the first of them.
#include "launch.cuh"
#include "launchers.h"
#include "pooling.cuh"

namespace dendritic_bert {

// How many tokens of a row count in its mean; every lane of the warp gets the number.
__device__ __forceinline__ float count_valid(const Tokens& tokens, const RowRange& range) {
  if (tokens.mask_bytes == 0) return float(range.length);
  int num_valid = 0;
  for (int64_t column = threadIdx.x % 32; column < range.length; column += 32)
    num_valid += load_mask(tokens, range.begin + column);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) num_valid += __shfl_xor_sync(all_lanes, num_valid, distance);
  return float(num_valid);
}

// Computes G of the row for this lane's channels. If `writes`, stores it, and the row's terms for gamma and beta too.
template <class Word, class S>
__device__ __forceinline__ void compute_row_gradient(const BackwardArguments& arguments, const WarpShare& share,
                                                     uint64_t seed, bool writes, float (&gradient)[S::values]) {
  const int hidden_size = arguments.table.hidden_size;
  const Dropout& dropout = arguments.dropout;
  const float num_valid = count_valid(arguments.tokens, share.range);
  const PoolingFactors factors = pooling_factors(arguments.tokens.pooling, num_valid);
  const float scale = factors.scale * dropout.embed_scale;
  const bool bounds_are_valid = cu_seqlens_is_valid(arguments.tokens);
  float keep[4] = {1, 1, 1, 1};
#pragma unroll
  for (int i = 0; i < S::values; ++i) {
    const int channel = channel_of<S>(share.first_channel, i / 8) + i % 8;
    if (i % 4 == 0 && dropout.pool_threshold > 0)
      draw_mask(seed, dropout.pool_threshold, channel, share.row, 0, pool_stream, keep);
    gradient[i] = 0;
    if (channel >= hidden_size || share.row >= arguments.tokens.rows) continue;
    const int64_t place = share.row * hidden_size + channel;
    const float given = as_float(static_cast<const Word*>(arguments.grad_pooled)[place]);
    const float g = bounds_are_valid ? given * keep[i % 4] * dropout.pool_scale : NAN;
    gradient[i] = g * scale * as_float(static_cast<const Word*>(arguments.ln_weight)[channel]);
    if (!writes) continue;
    if (arguments.row_gradient) arguments.row_gradient[place] = gradient[i];
    arguments.weight_terms[place] = g * arguments.pooled_hat[place];
    // With dropout this is multiplied, at the end of the kernel, by the number of tokens that kept the channel.
    arguments.bias_terms[place] = g * (dropout.embed_threshold > 0 ? scale : factors.beta_share);
  }
}

// Adds four channels, by one 16-byte reduction in L2 if the device has it.
__device__ __forceinline__ void add_4_channels(float* to, const float* x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(x[0], x[1], x[2], x[3]));
#else
  for (int i = 0; i < 4; ++i) atomicAdd(to + i, x[i]);
#endif
}

// to[channel] += x for the channels of this lane.
template <class S>
__device__ __forceinline__ void add_channels(float* to, int first_channel, int hidden_size,
                                             const float (&x)[S::values]) {
#pragma unroll
  for (int v = 0; v < S::vectors; ++v) {
    const int channel = channel_of<S>(first_channel, v);
    if constexpr (S::width == Width::any) {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (channel + i < hidden_size) atomicAdd(to + channel + i, x[8 * v + i]);
    } else if (S::width == Width::exact || channel < hidden_size) {
      add_4_channels(to + channel, x + 8 * v);
      add_4_channels(to + channel + 4, x + 8 * v + 4);
    }
  }
}

// Computes (a, c, d) of the group's `unroll` tokens from `first_token` of the list on, stores them if that is asked
// for, and adds d e to those gradients that are served by atomics.
template <class Word, class S>
__device__ __forceinline__ void differentiate_tokens(const BackwardArguments& arguments, const Table& table,
                                                     const WarpShare& share, const TokenList& list, int first_token,
                                                     int num_valid, uint64_t seed, const float (&gradient)[S::values],
                                                     float* exchange, float (&kept)[S::values]) {
  const int lane = threadIdx.x % 32, hidden_size = table.hidden_size, owned = first_token + owned_token<S>();
  const bool drop = arguments.dropout.embed_threshold > 0;
  const float inverse = 1.0f / float(hidden_size);
  float e[S::unroll][S::values], sums[S::unroll], products[S::unroll];
  const Moments moments =
      normalise<Word, S, false>(table, list, first_token, share.first_channel, share.slices, exchange, e);
#pragma unroll
  for (int u = 0; u < S::unroll; ++u) {
    float keep[S::values];
#pragma unroll
    for (int i = 0; i < S::values; ++i) keep[i] = 1;
    if (drop)
      draw_token_mask<S>(arguments.dropout, seed, share.first_channel, share.row, list.column[first_token + u], keep);
    sums[u] = products[u] = 0;
#pragma unroll
    for (int i = 0; i < S::values; ++i) {
      sums[u] = fmaf(keep[i], gradient[i], sums[u]);
      products[u] = fmaf(keep[i] * gradient[i], e[u][i], products[u]);
      kept[i] += first_token + u < num_valid ? keep[i] : 0.0f;
    }
  }
  const float mean = inverse * sum_over_slices<S>(sum_over_lanes<S>(sums), share.slices, exchange);
  const float product = inverse * sum_over_slices<S>(sum_over_lanes<S>(products), share.slices, exchange);
  // d_centred goes with the centred e, which the registers hold; d goes with e itself, which the sorted sums gather
  // anew.
  const float a = moments.rstd, c = a * a * a * product, d_centred = -a * mean;
  if (arguments.token_gradient && owned < num_valid && lane % (S::lanes / S::unroll) == 0 && share.first_channel == 0) {
    const int64_t token = share.range.begin + list.column[owned];
    arguments.token_gradient[token] = {a,
                                       c,
                                       fmaf(c, moments.mean, d_centred),
                                       int32_t(share.row),
                                       list.column[owned],
                                       list.rows[owned].x,
                                       list.rows[owned].y,
                                       0};
  }
  if (!arguments.d_context) return;
#pragma unroll
  for (int u = 0; u < S::unroll; ++u) {
    const float a_u = from_owner<S>(a, u), c_u = from_owner<S>(c, u), d_u = from_owner<S>(d_centred, u);
    if (first_token + u >= num_valid) continue;
    float keep[S::values], d_e[S::values];
#pragma unroll
    for (int i = 0; i < S::values; ++i) keep[i] = 1;
    if (drop)
      draw_token_mask<S>(arguments.dropout, seed, share.first_channel, share.row, list.column[first_token + u], keep);
#pragma unroll
    for (int i = 0; i < S::values; ++i) d_e[i] = fmaf(a_u * keep[i], gradient[i], fmaf(-c_u, e[u][i], d_u));
    const int2 rows = list.rows[first_token + u];
    if (arguments.d_word)
      add_channels<S>(arguments.d_word + int64_t(rows.x) * hidden_size, share.first_channel, hidden_size, d_e);
    add_channels<S>(arguments.d_context + int64_t(rows.y) * hidden_size, share.first_channel, hidden_size, d_e);
  }
}

template <class Word, class S>
__global__ void __launch_bounds__(max_threads<S>, 1) token_gradients_kernel(const BackwardArguments arguments) {
  DYNAMIC_SHARED(memory);
  __shared__ TokenList lists[max_warps<S>];
  __shared__ float exchange[S::width == Width::any ? max_threads<S> : 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, hidden_size = arguments.table.hidden_size;
  const Tokens& tokens = arguments.tokens;
  const bool drop = arguments.dropout.embed_threshold > 0;
  BlockSums block;
  place_sums<S>(arguments.plan, hidden_size, false, reinterpret_cast<float*>(memory), block);
  WarpShare share = share_of_warp<S>(tokens, arguments.plan, hidden_size);
  start_at(own_columns(tokens, share.row, share.range).first, share);
  const Table table = move_to_lane<S, Word>(arguments.table, share.first_channel);
  const uint64_t seed = arguments.dropout.seed ? uint64_t(*arguments.dropout.seed) : 0;
  TokenList& list = lists[warp];
  float gradient[S::values], kept[S::values] = {};
  const bool writes = share.slices > 1 || (warp % arguments.plan.warps_per_row == 0 && lane < S::lanes);
  compute_row_gradient<Word, S>(arguments, share, seed, writes, gradient);

  for (int64_t tile = share.first_column; tile < share.end; tile += int64_t(tile_tokens) * share.column_step) {
    const int64_t column = tile + int64_t(lane) * share.column_step;
    Token token;
    if (column < share.end) {
      if (!share.range.bad) token = load_token(tokens, share.range, column);
      const int64_t place = share.range.begin + column;
      if (arguments.token_gradient && share.first_channel == 0) {
        arguments.word_keys[place] = token.valid ? token.id : int32_t(tokens.vocab_size);
        arguments.context_keys[place] = token.valid ? token.context : int32_t(tokens.num_types * tokens.num_positions);
        if (!token.valid) arguments.token_gradient[place].row = -1;
      }
    }
    const int num_valid = fill_list<false>(list, token, column, nullptr);
    for (int step = 0; step < num_valid; step += S::step)
      differentiate_tokens<Word, S>(
          arguments, table, share, list, step + lane / S::lanes * S::unroll, num_valid, seed, gradient, exchange, kept);
  }
  if (!drop) return;
  store_channels<S>(kept, share.first_channel, hidden_size, block.sums + share.slot * block.stride);
  __syncthreads();
  const int64_t first_row = int64_t(blockIdx.x) * block.rows;
  for (int r = 0; r < block.rows && first_row + r < tokens.rows; ++r)
    for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) {
      float total = 0;
      for (int w = 0; w < block.writers; ++w) total += block.sums[(r * block.writers + w) * block.stride + h];
      arguments.bias_terms[(first_row + r) * hidden_size + h] *= total;
    }
}

void launch_token_gradients(const BackwardArguments& arguments, void* stream) {
  const Plan& plan = arguments.plan;
  const int hidden_size = arguments.table.hidden_size;
  const bool aligned = is_aligned(arguments.table) && is_aligned(arguments.d_word) && is_aligned(arguments.d_context);
  const Launch launch{"embed_pool_backward", arguments.tokens, hidden_size, static_cast<cudaStream_t>(stream)};
  with_parameter(arguments.table.word_type, [&](auto word) {
    with_shape(hidden_size, aligned, [&](auto shape) {
      using OneByOne = typename decltype(shape)::OneByOne;  // the dropout mask and G take the registers of other tokens
      launch(token_gradients_kernel<decltype(word), OneByOne>, blocks_of(plan, arguments.tokens, hidden_size), 1,
             32 * warps_of_block(hidden_size), sum_bytes(plan, hidden_size, false), arguments);
    });
  });
}

}  // namespace dendritic_bert
