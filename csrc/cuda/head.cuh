// The dendritic head of inference: the stacked matrix times pooled rows in shared memory, then the dendrites in their
// order.
#pragma once

#include "arguments.h"
#include "device.cuh"

namespace dendritic_bert {

constexpr int head_rows = 4;  // rows of a block that share the loads of the head's weights

__device__ __forceinline__ float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::sigmoid: return 1.0f / (1.0f + expf(-x));
    case Activation::tanh: return tanhf(x);
    case Activation::relu: return x > 0 ? x : (x == x ? 0.0f : x);  // NaN stays NaN, as in torch
    default: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  }
}

// z[r][o] = <weight[o], pooled[r]> with what add_constant(r, o, product) adds to it, with one warp for each output. If
// four_at_once, hidden_size is a multiple of 4 and the address of the weights one of 16. `thread` is threadIdx.x;
// signed or not makes a difference of two registers, and which is better depends on the kernel.
template <bool four_at_once, class Thread, class AddConstant>
__device__ __forceinline__ void multiply_head(const Head& head, int hidden_size, const float* pooled, int stride,
                                              int rows, float* z, Thread thread, const AddConstant& add_constant) {
  const int warps = blockDim.x / 32, lane = int(thread % 32);
  const int outputs = (1 + head.num_dendrites) * head.num_labels;
  for (int o = int(thread / 32); o < outputs; o += warps) {
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
        for (int r = 0; r < head_rows; ++r)
          if (r < rows) total[r] = fmaf(weight[h], pooled[r * stride + h], total[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < head_rows; ++r) {
      if (r >= rows) break;
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) total[r] += __shfl_xor_sync(all_lanes, total[r], distance);
      if (lane == 0) z[r * outputs + o] = add_constant(r, o, total[r]);
    }
  }
}

// The logit of one label of one row. z [outputs] holds y, then A_k pooled + b_k of every dendrite, which its activation
// replaces. Labels do not depend on one another.
__device__ __forceinline__ float apply_dendrites(const Head& head, int label, float* z) {
  const int num_labels = head.num_labels, num_dendrites = head.num_dendrites;
  float y = z[label];
  for (int k = 0; k < num_dendrites; ++k) {
    float a = z[(1 + k) * num_labels + label];
    for (int j = 0; j < k; ++j)
      a = fmaf(head.lateral[(k * num_dendrites + j) * num_labels + label], z[(1 + j) * num_labels + label], a);
    a = activate(head.activation, a);
    z[(1 + k) * num_labels + label] = a;
    y = fmaf(head.top[k * num_labels + label], a, y);
  }
  return y;
}

}  // namespace dendritic_bert
