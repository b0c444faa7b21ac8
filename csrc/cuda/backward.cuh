// Gradients of embed_pool.
//
// With G = gamma * g * scale (g the gradient of the pooled row, scale what pooling and dropout multiply a token by), m
// the dropout mask of a token and e its embedding sum, LayerNorm's backward is
//
//   d e = rstd * (m G - mean(m G)) - rstd^3 * mean(m G * centred e) * centred e
//       = a * m G - c * e + d        a = rstd, c = rstd^3 * mean(m G * centred e), d = c * mean(e) - a * mean(m G)
//
// so that three floats a token are all that is kept. Three kernels:
//   1. token_gradient_kernel, in the order of rows: G, what gamma and beta get from each row, and (a, c, d). Its fast form
//      adds d e to the tables' gradients at once, by atomics: the order of the sums is then the device's. Where no sum
//      is left to the other two, G and (a, c, d) stay in registers: 40 bytes a token less.
//   2. run_kernel, in the order of ids (or of positions): tokens sorted by key are cut into chunks of 32, and a group of
//      lanes sums d e over each run of equal keys in registers. A run inside a chunk is written; parts of a longer run,
//      [CLS] above all, are kept.
//   3. join_kernel adds up the parts in order. The bits depend on shapes and ids alone.
//
// Where cu_seqlens does not rise from 0 to the number of tokens, rows may share tokens: G is NaN, and a token that several
// rows hold goes into the gradients once, with the first of them.
#pragma once

#include "forward.cuh"

// How many tokens of a row count in its mean; every lane of the warp gets it.
__device__ __forceinline__ float kept_tokens(const Tokens& tokens, const RowRange& range) {
  if (tokens.mask_bytes == 0) return float(range.length);
  int kept = 0;
  for (int64_t column = threadIdx.x % 32; column < range.length; column += 32) kept += shown(tokens, range.begin + column);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) kept += __shfl_xor_sync(all_lanes, kept, distance);
  return float(kept);
}

// G of the row in this lane's channels; where `writes`, it is stored, and so are the row's terms for gamma and beta.
template <class Word, class S>
__device__ __forceinline__ void begin_row(const BackwardArguments& arguments, const Share& share, uint64_t seed,
                                          bool writes, float (&gradient)[S::values]) {
  const int hidden_size = arguments.table.hidden_size;
  const Dropout& dropout = arguments.dropout;
  const float2 factors = pooling_factors(arguments.tokens.pooling, kept_tokens(arguments.tokens, share.range));
  const float scale = factors.x * dropout.embed_scale;
  const bool sound = is_sound(arguments.tokens);
  float keep[4] = {1, 1, 1, 1};
#pragma unroll
  for (int i = 0; i < S::values; ++i) {
    if (i % 4 == 0 && dropout.pool_threshold > 0)
      dropout_keep(seed, dropout.pool_threshold, channel_of<S>(share.first_channel, i / 8) + i % 8, share.row, 0,
                   pool_stream, keep);
    const int channel = channel_of<S>(share.first_channel, i / 8) + i % 8;
    gradient[i] = 0;
    if (channel >= hidden_size || share.row >= arguments.tokens.rows) continue;
    const int64_t at = share.row * hidden_size + channel;
    const float given = as_float(static_cast<const Word*>(arguments.grad_pooled)[at]);
    const float g = sound ? given * keep[i % 4] * dropout.pool_scale : NAN;
    gradient[i] = g * scale * as_float(static_cast<const Word*>(arguments.ln_weight)[channel]);
    if (!writes) continue;
    if (arguments.row_gradient) arguments.row_gradient[at] = gradient[i];
    arguments.weight_terms[at] = g * arguments.pooled_hat[at];
    arguments.bias_terms[at] = g * (dropout.embed_threshold > 0 ? scale : factors.y);  // times the kept tokens, later
  }
}

// Four channels by one 16-byte reduction in L2 where the device has it.
__device__ __forceinline__ void add4(float* to, const float* x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(x[0], x[1], x[2], x[3]));
#else
  for (int i = 0; i < 4; ++i) atomicAdd(to + i, x[i]);
#endif
}

// to[i] += x[i] for this lane's channels.
template <class S>
__device__ __forceinline__ void add_channels(float* to, int first, int hidden_size, const float (&x)[S::values]) {
#pragma unroll
  for (int v = 0; v < S::vectors; ++v) {
    const int channel = channel_of<S>(first, v);
    if constexpr (S::width == Width::any) {
#pragma unroll
      for (int i = 0; i < 8; ++i) if (channel + i < hidden_size) atomicAdd(to + channel + i, x[8 * v + i]);
    } else if (S::width == Width::exact || channel < hidden_size) {
      add4(to + channel, x + 8 * v);
      add4(to + channel + 4, x + 8 * v + 4);
    }
  }
}

// (a, c, d) of `unroll` tokens a group, from list entry `mine` on.
template <class Word, class S>
__device__ __forceinline__ void token_gradients(const BackwardArguments& arguments, const Table& table, const Share& share,
                                                const TokenList& list, int mine, int count, uint64_t seed,
                                                const float (&gradient)[S::values], float* exchange,
                                                float (&kept)[S::values]) {
  const int lane = threadIdx.x % 32, hidden_size = table.hidden_size, owned = mine + owned_token<S>();
  const bool drop = arguments.dropout.embed_threshold > 0;
  const float inverse = 1.0f / float(hidden_size);
  float e[S::unroll][S::values], sums[S::unroll], products[S::unroll];
  const Moments moments = normalise<Word, S, false>(table, list, mine, share, exchange, e);
#pragma unroll
  for (int u = 0; u < S::unroll; ++u) {
    float keep[S::values];
#pragma unroll
    for (int i = 0; i < S::values; ++i) keep[i] = 1;
    if (drop) token_mask<S>(arguments.dropout, seed, share.first_channel, share.row, list.column[mine + u], keep);
    sums[u] = products[u] = 0;
#pragma unroll
    for (int i = 0; i < S::values; ++i) {
      sums[u] = fmaf(keep[i], gradient[i], sums[u]);
      products[u] = fmaf(keep[i] * gradient[i], e[u][i], products[u]);
      kept[i] += mine + u < count ? keep[i] : 0.0f;
    }
  }
  const float mean = inverse * sum_over_slices<S>(sum_over_lanes<S>(sums), share.slices, exchange);
  const float product = inverse * sum_over_slices<S>(sum_over_lanes<S>(products), share.slices, exchange);
  const float a = moments.rstd, c = a * a * a * product, centred_d = -a * mean;
  if (arguments.token_gradient && owned < count && lane % (S::lanes / S::unroll) == 0 && share.first_channel == 0) {
    const int64_t token = share.range.begin + list.column[owned];
    arguments.token_gradient[token] = {a, c, fmaf(c, moments.mean, centred_d), int32_t(share.row), list.column[owned],
                                       list.rows[owned].x, list.rows[owned].y, 0};
  }
  if (!arguments.d_context) return;
#pragma unroll
  for (int u = 0; u < S::unroll; ++u) {
    const float a_u = from_owner<S>(a, u), c_u = from_owner<S>(c, u), d_u = from_owner<S>(centred_d, u);
    if (mine + u >= count) continue;
    float keep[S::values], d_e[S::values];
#pragma unroll
    for (int i = 0; i < S::values; ++i) keep[i] = 1;
    if (drop) token_mask<S>(arguments.dropout, seed, share.first_channel, share.row, list.column[mine + u], keep);
#pragma unroll
    for (int i = 0; i < S::values; ++i) d_e[i] = fmaf(a_u * keep[i], gradient[i], fmaf(-c_u, e[u][i], d_u));
    const int2 rows = list.rows[mine + u];
    if (arguments.d_word) add_channels<S>(arguments.d_word + int64_t(rows.x) * hidden_size, share.first_channel, hidden_size, d_e);
    add_channels<S>(arguments.d_context + int64_t(rows.y) * hidden_size, share.first_channel, hidden_size, d_e);
  }
}

template <class Word, class S>
__global__ void __launch_bounds__(max_threads<S>, 1) token_gradient_kernel(const BackwardArguments arguments) {
  DYNAMIC_SHARED(memory);
  __shared__ TokenList lists[max_warps<S>];
  __shared__ float exchange[S::width == Width::any ? max_threads<S> : 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, hidden_size = arguments.table.hidden_size;
  const Tokens& tokens = arguments.tokens;
  const bool drop = arguments.dropout.embed_threshold > 0;
  BlockSums block;
  place_sums<S>(arguments.plan, hidden_size, false, reinterpret_cast<float*>(memory), block);
  Share share = share_of_warp<S>(tokens, arguments.plan, hidden_size);
  start_at(own_columns(tokens, share.row, share.range).first, share);
  const Table table = at_lane<S, Word>(arguments.table, share.first_channel);
  const uint64_t seed = arguments.dropout.seed ? uint64_t(*arguments.dropout.seed) : 0;
  TokenList& list = lists[warp];
  float gradient[S::values], kept[S::values] = {};
  const bool writes = share.slices > 1 || (warp % arguments.plan.warps_per_row == 0 && lane < S::lanes);
  begin_row<Word, S>(arguments, share, seed, writes, gradient);

  for (int64_t tile = share.first_column; tile < share.end; tile += int64_t(tile_tokens) * share.column_step) {
    const int64_t column = tile + int64_t(lane) * share.column_step;
    Token token;
    if (column < share.end) {
      if (!share.range.bad) token = read_token(tokens, share.range, column);
      const int64_t place = share.range.begin + column;
      if (arguments.token_gradient && share.first_channel == 0) {
        arguments.word_keys[place] = token.kept ? token.id : int32_t(tokens.vocab_size);
        arguments.context_keys[place] = token.kept ? token.context : int32_t(tokens.num_types * tokens.num_positions);
        if (!token.kept) arguments.token_gradient[place].row = -1;
      }
    }
    const int count = fill<false>(list, token, column, nullptr);
    for (int first = 0; first < count; first += S::step)
      token_gradients<Word, S>(arguments, table, share, list, first + lane / S::lanes * S::unroll, count, seed, gradient,
                               exchange, kept);
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

__device__ __forceinline__ void store_sum(const RunArguments& arguments, int64_t i, float x) {
  switch (arguments.type) {
    case WordType::bfloat16: return store_as(static_cast<__nv_bfloat16*>(arguments.sums) + i, x);
    case WordType::float16: return store_as(static_cast<__half*>(arguments.sums) + i, x);
    default: return store_as(static_cast<float*>(arguments.sums) + i, x);
  }
}

__device__ __forceinline__ int64_t target_of(const RunArguments& arguments, int64_t i) {
  return arguments.target ? arguments.target[i] : arguments.keys[i];
}

template <class Word, class S>
__global__ void __launch_bounds__(128) run_kernel(const RunArguments arguments) {
  __shared__ TokenGradient tokens[block_warps * S::groups][run_chunk];
  const int lane = threadIdx.x % S::lanes, group = threadIdx.x / S::lanes, hidden_size = arguments.table.hidden_size;
  const int first_channel = blockIdx.y * S::channels;
  const int64_t chunk = int64_t(blockIdx.x) * (block_warps * S::groups) + group, begin = chunk * run_chunk;
  const int64_t left = arguments.num_tokens - begin;
  const int count = left < 0 ? 0 : left < run_chunk ? int(left) : run_chunk;
  for (int i = lane; i < count; i += S::lanes) tokens[group][i] = arguments.token_gradient[arguments.order[begin + i]];
  __syncwarp();

  const Table table = at_lane<S, Word>(arguments.table, first_channel);
  const float* const gradients = arguments.row_gradient + channel_of<S>(first_channel, 0);
  const uint64_t seed = arguments.dropout.seed ? uint64_t(*arguments.dropout.seed) : 0;
  float sum[S::values] = {};
  bool from_before = count && begin > 0 && arguments.keys[begin - 1] == arguments.keys[begin];
  for (int i = 0; i < count; ++i) {
    const int32_t key = arguments.keys[begin + i];
    const TokenGradient& token = tokens[group][i];
    if (key >= arguments.no_part) break;  // and so does all that follows
    if (token.row >= 0) {
      float e[S::values], gradient[S::values], keep[S::values];
      embed<S, Word>(table, make_int2(token.id, token.context), 1, first_channel, e);
      load_row<S>(row_of<S, float>(gradients, token.row, hidden_size), first_channel, hidden_size, gradient);
      if (arguments.dropout.embed_threshold > 0) {
        token_mask<S>(arguments.dropout, seed, first_channel, token.row, token.column, keep);
#pragma unroll
        for (int h = 0; h < S::values; ++h) gradient[h] *= keep[h];
      }
#pragma unroll
      for (int h = 0; h < S::values; ++h)
        sum[h] += fmaf(token.a, gradient[h], fmaf(-token.c, e[h], token.d));
    }
    const bool last = begin + i + 1 == arguments.num_tokens;
    const bool ends = last || arguments.keys[begin + i + 1] != key;
    if (!ends && i + 1 < run_chunk) continue;
    float* const part = arguments.partial + (2 * chunk + !from_before) * hidden_size;
    const int64_t to = target_of(arguments, begin + i) * hidden_size;
#pragma unroll
    for (int h = 0; h < S::values; ++h) {
      const int channel = channel_of<S>(first_channel, h / 8) + h % 8;
      if (channel < hidden_size) {
        if (ends && !from_before) store_sum(arguments, to + channel, sum[h]);
        else part[channel] = sum[h];
      }
      sum[h] = 0;
    }
    from_before = false;
  }
}

// One block a chunk: if a run begins in it and goes on behind it, all its parts in order.
__global__ void join_kernel(const RunArguments arguments) {
  const int64_t chunk = blockIdx.x, begin = chunk * run_chunk, end = begin + run_chunk, n = arguments.num_tokens;
  if (end >= n) return;
  const int32_t* const keys = arguments.keys;
  const int32_t key = keys[end - 1];
  const bool began_before = keys[begin] == key && begin > 0 && keys[begin - 1] == key;
  if (key >= arguments.no_part || keys[end] != key || began_before) return;
  const int hidden_size = arguments.table.hidden_size;
  int64_t last = chunk + 1;
  while ((last + 1) * run_chunk < n && keys[last * run_chunk + run_chunk - 1] == key && keys[(last + 1) * run_chunk] == key) ++last;
  for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) {
    float sum = arguments.partial[(2 * chunk + 1) * hidden_size + h];
    for (int64_t c = chunk + 1; c <= last; ++c) sum += arguments.partial[2 * c * hidden_size + h];
    store_sum(arguments, target_of(arguments, end - 1) * hidden_size + h, sum);
  }
}
