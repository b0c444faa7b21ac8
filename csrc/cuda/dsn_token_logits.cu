// dsn_token_logits: the head on every token instead of on the pooled row, for question answering. The loop is that of
// pooling.cuh with the head in the place of the sum: a group of lanes keeps the normalised token in registers and walks
// the labels.
#include "head.cuh"
#include "launch.cuh"
#include "launchers.h"
#include "layer_norm.cuh"
#include "warp_share.cuh"

namespace dendritic_bert {

// One logit of a token, the same in every lane of the group. `activations` holds those of its dendrites, in shared
// memory.
template <class S>
__device__ __forceinline__ float compute_logit(const Head& head, int label, const float (&x)[S::values],
                                               int hidden_size, const WarpShare& share, float* exchange,
                                               float* activations) {
  float y = 0;
  for (int k = 0; k <= head.num_dendrites; ++k) {
    const int output = k * head.num_labels + label;
    const float* const row = head.weight + int64_t(output) * hidden_size + channel_of<S>(share.first_channel, 0);
    float weight[S::values], z = 0;
    load_row<S>(row, share.first_channel, hidden_size, weight);
#pragma unroll
    for (int i = 0; i < S::values; ++i) z = fmaf(weight[i], x[i], z);
#pragma unroll
    for (int distance = S::lanes / 2; distance > 0; distance /= 2) z += __shfl_xor_sync(all_lanes, z, distance);
    z = sum_over_slices<S>(z, share.slices, exchange) + head.bias[output] + head.beta_bias[output];
    if (k == 0) {
      y = z;
      continue;
    }
    for (int j = 0; j < k - 1; ++j)
      z = fmaf(head.lateral[((k - 1) * head.num_dendrites + j) * head.num_labels + label], activations[j], z);
    z = activate(head.activation, z);
    __syncwarp();
    activations[k - 1] = z;  // the same value from every lane
    __syncwarp();
    y = fmaf(head.top[(k - 1) * head.num_labels + label], z, y);
  }
  return y;
}

__device__ __forceinline__ void set_logits(float* logits, int num_labels, float value) {
  for (int c = 0; c < num_labels; ++c) logits[c] = value;
}

// Logits are 0 for a masked token, and NaN for a token whose index or row is bad or that several rows hold.
template <class Word, class S>
__global__ void __launch_bounds__(max_threads<S>, S::width == Width::any ? 1 : 4)
    dsn_token_logits_kernel(const LogitsArguments arguments) {
  DYNAMIC_SHARED(memory);  // [warps, groups, num_dendrites] activations
  __shared__ TokenList lists[max_warps<S>];
  __shared__ float exchange[S::width == Width::any ? max_threads<S> : 1];
  const Head& head = arguments.head;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / S::lanes;
  const int hidden_size = arguments.table.hidden_size, num_labels = head.num_labels;
  float* const activations = reinterpret_cast<float*>(memory) + (warp * S::groups + group) * head.num_dendrites;
  WarpShare share = share_of_warp<S>(arguments.tokens, arguments.plan, hidden_size);
  const OwnColumns own = own_columns(arguments.tokens, share.row, share.range);
  start_at(own.first, share);
  for (int64_t column = share.first_column + int64_t(lane) * share.column_step; column < share.end;
       column += int64_t(tile_tokens) * share.column_step)
    if (column >= own.end && share.first_channel == 0)
      set_logits(arguments.logits + (share.range.begin + column) * num_labels, num_labels, NAN);
  if (own.end < share.end) share.end = own.end;
  const Table table = move_to_lane<S, Word>(arguments.table, share.first_channel);
  float* const logits = arguments.logits + share.range.begin * num_labels;

  for (int64_t tile = share.first_column; tile < share.end; tile += int64_t(tile_tokens) * share.column_step) {
    const int64_t column = tile + int64_t(lane) * share.column_step;
    Token token;
    if (column < share.end) token = load_token(arguments.tokens, share.range, column);
    if (column < share.end && !token.valid && share.first_channel == 0)
      set_logits(logits + column * num_labels, num_labels, token.bad ? NAN : 0.0f);
    const int num_valid = fill_list<has_scale<Word>>(lists[warp], token, column, table.word_scale);
    for (int step = 0; step < num_valid; step += S::step) {
      const int first_token = step + group * S::unroll;
      float x[S::unroll][S::values];
      const float rstd =
          normalise<Word, S, true>(table, lists[warp], first_token, share.first_channel, share.slices, exchange, x)
              .rstd;
#pragma unroll
      for (int u = 0; u < S::unroll; ++u) {
        const float r = from_owner<S>(rstd, u);
#pragma unroll
        for (int i = 0; i < S::values; ++i) x[u][i] *= r;
        for (int c = 0; c < num_labels; ++c) {
          const float y = compute_logit<S>(head, c, x[u], hidden_size, share, exchange, activations);
          if (first_token + u < num_valid && lane % S::lanes == c % S::lanes && share.first_channel == 0)
            logits[lists[warp].column[first_token + u] * int64_t(num_labels) + c] = y;
        }
      }
    }
  }
}

void launch_dsn_token_logits(const LogitsArguments& arguments, void* stream) {
  const Plan& plan = arguments.plan;
  const int hidden_size = arguments.table.hidden_size, warps = warps_of_block(hidden_size);
  const bool aligned = is_aligned(arguments.table) && is_aligned(arguments.head.weight);
  const Launch launch{"dsn_token_logits", arguments.tokens, hidden_size, static_cast<cudaStream_t>(stream)};
  with_table_word(arguments.table.word_type, [&](auto word) {
    with_shape(hidden_size, aligned, [&](auto shape) {
      const size_t groups = size_t(warps) * decltype(shape)::groups;
      launch(dsn_token_logits_kernel<decltype(word), decltype(shape)>, blocks_of(plan, arguments.tokens, hidden_size),
             plan.splits, 32 * warps, sizeof(float) * groups * size_t(arguments.head.num_dendrites), arguments);
    });
  });
}

}  // namespace dendritic_bert
