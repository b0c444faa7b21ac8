// Question answering: the head on every token instead of on the pooled row. The loop is that of forward.cuh with the head
// in place of the sum: a group of lanes keeps the normalised token in registers and walks the labels.
#pragma once

#include "forward.cuh"

// A token's logits, the same in every lane of the group; `a` holds its dendrites' activations in shared memory.
template <class S>
__device__ __forceinline__ float label_logit(const Head& head, int label, const float (&x)[S::values], int hidden_size,
                                             const Share& share, float* exchange, float* a) {
  float y = 0;
  for (int k = 0; k <= head.num_dendrites; ++k) {
    const int output = k * head.num_labels + label;
    float weight[S::values], z = 0;
    load_row<S>(head.weight + int64_t(output) * hidden_size + channel_of<S>(share.first_channel, 0), share.first_channel, hidden_size, weight);
#pragma unroll
    for (int i = 0; i < S::values; ++i) z = fmaf(weight[i], x[i], z);
#pragma unroll
    for (int distance = S::lanes / 2; distance > 0; distance /= 2) z += __shfl_xor_sync(all_lanes, z, distance);
    z = sum_over_slices<S>(z, share.slices, exchange) + head.bias[output] + head.beta_bias[output];
    if (k == 0) { y = z; continue; }
    for (int j = 0; j < k - 1; ++j)
      z = fmaf(head.lateral[((k - 1) * head.num_dendrites + j) * head.num_labels + label], a[j], z);
    z = activate(head.activation, z);
    __syncwarp();
    a[k - 1] = z;  // the same value from every lane
    __syncwarp();
    y = fmaf(head.top[(k - 1) * head.num_labels + label], z, y);
  }
  return y;
}

// What no group computes: 0 for a masked token, NaN for one whose index or row does not fit or that two rows hold.
__device__ __forceinline__ void fill_label_row(float* logits, int labels, float value) {
  for (int c = 0; c < labels; ++c) logits[c] = value;
}

template <class Word, class S>
__global__ void __launch_bounds__(max_threads<S>, S::width == Width::any ? 1 : 4)
    token_logits_kernel(const TokenLogitsArguments arguments) {
  DYNAMIC_SHARED(memory);  // [warps, groups, num_dendrites] activations
  __shared__ TokenList lists[max_warps<S>];
  __shared__ float exchange[S::width == Width::any ? max_threads<S> : 1];
  const Head& head = arguments.head;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / S::lanes;
  const int hidden_size = arguments.table.hidden_size, labels = head.num_labels;
  float* const activations = reinterpret_cast<float*>(memory) + (warp * S::groups + group) * head.num_dendrites;
  Share share = share_of_warp<S>(arguments.tokens, arguments.plan, hidden_size);
  const OwnColumns own = own_columns(arguments.tokens, share.row, share.range);
  start_at(own.first, share);
  for (int64_t column = share.first_column + int64_t(lane) * share.column_step; column < share.end;
       column += int64_t(tile_tokens) * share.column_step)
    if (column >= own.end && share.first_channel == 0)
      fill_label_row(arguments.logits + (share.range.begin + column) * labels, labels, NAN);
  if (own.end < share.end) share.end = own.end;
  const Table table = at_lane<S, Word>(arguments.table, share.first_channel);
  float* const logits = arguments.logits + share.range.begin * labels;

  for (int64_t tile = share.first_column; tile < share.end; tile += int64_t(tile_tokens) * share.column_step) {
    const int64_t column = tile + int64_t(lane) * share.column_step;
    Token token;
    if (column < share.end) token = read_token(arguments.tokens, share.range, column);
    if (column < share.end && !token.kept && share.first_channel == 0)
      fill_label_row(logits + column * labels, labels, token.bad ? NAN : 0.0f);
    const int count = fill<has_scale<Word>>(lists[warp], token, column, table.word_scale);
    for (int first = 0; first < count; first += S::step) {
      const int mine = first + group * S::unroll;
      float x[S::unroll][S::values];
      const float rstd = normalise<Word, S, true>(table, lists[warp], mine, share, exchange, x).rstd;
#pragma unroll
      for (int u = 0; u < S::unroll; ++u) {
        const float r = from_owner<S>(rstd, u);
#pragma unroll
        for (int i = 0; i < S::values; ++i) x[u][i] *= r;
        for (int c = 0; c < labels; ++c) {
          const float y = label_logit<S>(head, c, x[u], hidden_size, share, exchange, activations);
          if (mine + u < count && lane % S::lanes == c % S::lanes && share.first_channel == 0)
            logits[lists[warp].column[mine + u] * int64_t(labels) + c] = y;
        }
      }
    }
  }
}
