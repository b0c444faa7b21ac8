// The second part of embed_pool's backward in the order of ids, or of contexts: tokens are sorted by key, and the
// tokens of one key are a segment. d e of each token (embed_pool_backward.cu) is summed over each segment, and the
// order of the sums, and so every bit of the result, depends on shapes and ids alone.
//   1. segment_sums_kernel cuts the sorted tokens into chunks of 32, of which a group of lanes sums each segment's part
//      in registers. A segment that lies inside a chunk is done; the parts of a longer one, [CLS] above all, are kept.
//   2. combine_chunks_kernel adds up those parts in order.
#include "launch.cuh"
#include "launchers.h"
#include "philox.cuh"

namespace dendritic_bert {

__device__ __forceinline__ void store_sum(const SegmentArguments& arguments, int64_t i, float x) {
  switch (arguments.type) {
    case WordType::bfloat16: return store_as(static_cast<__nv_bfloat16*>(arguments.sums) + i, x);
    case WordType::float16: return store_as(static_cast<__half*>(arguments.sums) + i, x);
    default: return store_as(static_cast<float*>(arguments.sums) + i, x);
  }
}

__device__ __forceinline__ int64_t target_of(const SegmentArguments& arguments, int64_t i) {
  return arguments.target ? arguments.target[i] : arguments.keys[i];
}

template <class Word, class S>
__global__ void __launch_bounds__(32 * block_warps) segment_sums_kernel(const SegmentArguments arguments) {
  __shared__ TokenGradient tokens[block_warps * S::groups][segment_chunk];
  const int lane = threadIdx.x % S::lanes, group = threadIdx.x / S::lanes, hidden_size = arguments.table.hidden_size;
  const int first_channel = blockIdx.y * S::channels;
  const int64_t chunk = int64_t(blockIdx.x) * (block_warps * S::groups) + group, begin = chunk * segment_chunk;
  const int64_t left = arguments.num_tokens - begin;
  const int count = left < 0 ? 0 : left < segment_chunk ? int(left) : segment_chunk;
  for (int i = lane; i < count; i += S::lanes) tokens[group][i] = arguments.token_gradient[arguments.order[begin + i]];
  __syncwarp();

  const Table table = move_to_lane<S, Word>(arguments.table, first_channel);
  const float* const gradients = arguments.row_gradient + channel_of<S>(first_channel, 0);
  const uint64_t seed = arguments.dropout.seed ? uint64_t(*arguments.dropout.seed) : 0;
  float sum[S::values] = {};
  bool began_before = count && begin > 0 && arguments.keys[begin - 1] == arguments.keys[begin];
  for (int i = 0; i < count; ++i) {
    const int32_t key = arguments.keys[begin + i];
    const TokenGradient& token = tokens[group][i];
    if (key >= arguments.num_keys) break;  // no key of a table, and nor are the keys that follow
    if (token.row >= 0) {
      float e[S::values], gradient[S::values], keep[S::values];
      embed<S, Word>(table, make_int2(token.id, token.context), 1, first_channel, e);
      load_row<S>(row_of<S, float>(gradients, token.row, hidden_size), first_channel, hidden_size, gradient);
      if (arguments.dropout.embed_threshold > 0) {
        draw_token_mask<S>(arguments.dropout, seed, first_channel, token.row, token.column, keep);
#pragma unroll
        for (int h = 0; h < S::values; ++h) gradient[h] *= keep[h];
      }
#pragma unroll
      for (int h = 0; h < S::values; ++h) sum[h] += fmaf(token.a, gradient[h], fmaf(-token.c, e[h], token.d));
    }
    const bool last = begin + i + 1 == arguments.num_tokens;
    const bool ends = last || arguments.keys[begin + i + 1] != key;
    if (!ends && i + 1 < segment_chunk) continue;
    float* const part = arguments.partial + (2 * chunk + !began_before) * hidden_size;
    const int64_t to = target_of(arguments, begin + i) * hidden_size;
#pragma unroll
    for (int h = 0; h < S::values; ++h) {
      const int channel = channel_of<S>(first_channel, h / 8) + h % 8;
      if (channel < hidden_size) {
        if (ends && !began_before) store_sum(arguments, to + channel, sum[h]);
        else part[channel] = sum[h];
      }
      sum[h] = 0;
    }
    began_before = false;
  }
}

// One block for each chunk. If a segment begins in the chunk and goes on behind it, the block adds up all parts of the
// segment.
__global__ void combine_chunks_kernel(const SegmentArguments arguments) {
  const int64_t chunk = blockIdx.x, begin = chunk * segment_chunk, end = begin + segment_chunk;
  const int64_t num_tokens = arguments.num_tokens;
  if (end >= num_tokens) return;
  const int32_t* const keys = arguments.keys;
  const int32_t key = keys[end - 1];
  const bool began_before = keys[begin] == key && begin > 0 && keys[begin - 1] == key;
  if (key >= arguments.num_keys || keys[end] != key || began_before) return;
  const int hidden_size = arguments.table.hidden_size;
  const auto goes_on = [&](int64_t c) {  // whether the segment fills chunk c to its end and goes on behind it
    const int64_t next = (c + 1) * segment_chunk;
    return next < num_tokens && keys[next - 1] == key && keys[next] == key;
  };
  int64_t last = chunk + 1;
  while (goes_on(last)) ++last;
  for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) {
    float sum = arguments.partial[(2 * chunk + 1) * hidden_size + h];
    for (int64_t c = chunk + 1; c <= last; ++c) sum += arguments.partial[2 * c * hidden_size + h];
    store_sum(arguments, target_of(arguments, end - 1) * hidden_size + h, sum);
  }
}

void launch_segment_sums(const SegmentArguments& arguments, const Tokens& tokens, void* stream) {
  const int hidden_size = arguments.table.hidden_size;
  const int64_t chunks = chunks_of(arguments.num_tokens);
  const Launch launch{"embed_pool_backward's sums over ids", tokens, hidden_size, static_cast<cudaStream_t>(stream)};
  with_parameter(arguments.table.word_type, [&](auto word) {
    with_shape(hidden_size, is_aligned(arguments.table), [&](auto shape) {
      using S = decltype(shape);
      const int chunks_of_block = block_warps * S::groups;
      launch(segment_sums_kernel<decltype(word), S>, (chunks + chunks_of_block - 1) / chunks_of_block,
             (hidden_size + S::channels - 1) / S::channels, 32 * block_warps, 0, arguments);
    });
  });
  launch(combine_chunks_kernel, chunks, 1, 128, 0, arguments);
}

}  // namespace dendritic_bert
