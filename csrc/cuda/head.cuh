// The epilogue of inference: the stacked head on pooled rows in shared memory, then the cascade of dendrites.
#pragma once

#include "arguments.h"
#include "device.cuh"

constexpr int head_rows = 4;  // rows of a block that share the loads of the head's weights

__device__ __forceinline__ float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::sigmoid: return 1.0f / (1.0f + expf(-x));
    case Activation::tanh: return tanhf(x);
    case Activation::relu: return x > 0 ? x : (x == x ? 0.0f : x);  // torch keeps NaN
    default: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  }
}

// z[r][o] = <weight[o], pooled[r]> + bias[o] + beta_share[r] * beta_bias[o], one warp an output. Where four_at_once,
// hidden_size and the weights' address are multiples of 4 and 16.
template <bool four_at_once>
__device__ __forceinline__ void head_products(const Head& head, int hidden_size, const float* pooled, int stride, int rows,
                                              const float* beta_share, float* z) {
  const int warps = blockDim.x / 32, lane = threadIdx.x % 32, outputs = (1 + head.num_dendrites) * head.num_labels;
  for (int o = threadIdx.x / 32; o < outputs; o += warps) {
    const float* weight = head.weight + int64_t(o) * hidden_size;
    float total[head_rows] = {};
    if constexpr (four_at_once) {
      for (int h = 4 * lane; h < hidden_size; h += 128) {
        const float4 w = __ldg(reinterpret_cast<const float4*>(weight + h));
#pragma unroll
        for (int r = 0; r < head_rows; ++r) {
          if (r >= rows) break;
          const float4 x = *reinterpret_cast<const float4*>(pooled + r * stride + h);
          total[r] = fmaf(w.x, x.x, fmaf(w.y, x.y, fmaf(w.z, x.z, fmaf(w.w, x.w, total[r]))));
        }
      }
    } else {
      for (int h = lane; h < hidden_size; h += 32) {
#pragma unroll
        for (int r = 0; r < head_rows; ++r) if (r < rows) total[r] = fmaf(weight[h], pooled[r * stride + h], total[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < head_rows; ++r) {
      if (r >= rows) break;
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) total[r] += __shfl_xor_sync(all_lanes, total[r], distance);
      if (lane == 0) z[r * outputs + o] = total[r] + head.bias[o] + beta_share[r] * head.beta_bias[o];
    }
  }
}

// One label of one row: z [outputs] holds y, then every dendrite's A_k pooled + b_k, overwritten with the activations.
// Labels do not depend on one another.
__device__ __forceinline__ float cascade(const Head& head, int label, float* z) {
  const int labels = head.num_labels, dendrites = head.num_dendrites;
  float y = z[label];
  for (int k = 0; k < dendrites; ++k) {
    float a = z[(1 + k) * labels + label];
    for (int j = 0; j < k; ++j)
      a = fmaf(head.lateral[(k * dendrites + j) * labels + label], z[(1 + j) * labels + label], a);
    a = activate(head.activation, a);
    z[(1 + k) * labels + label] = a;
    y = fmaf(head.top[k * labels + label], a, y);
  }
  return y;
}
