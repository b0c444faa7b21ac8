// The gated sum of a tile's rows: a warp sums a part of up to 32 columns, and the parts of a row are added up in the
// order of the columns. A pooled row has the values' columns, then those of u, then the sum of the gates.
#pragma once

#include "window_rows.cuh"

namespace dendritic_bert {

constexpr float gate_limit = 8;  // GATE_LIMIT of kernels/contract.py

// exp(clip(x)), under which NaN stays NaN.
__device__ __forceinline__ float gate_of(float x) {
  return expf(x < -gate_limit ? -gate_limit : x > gate_limit ? gate_limit : x);
}

// The gate of each thread's column.
template <int channels>
__device__ __forceinline__ void compute_gates(const Windows& windows, const Columns& columns, const float* u,
                                              int stride) {
  const int column = work_out_here(threadIdx.x);
  const int32_t entry = columns.entry[column];
  float gate = entry >= 0 ? 1 : 0;
  if (entry >= 0 && windows.gate) {
    float logit = __ldg(windows.gate + entry);
#pragma unroll 4
    for (int channel = 0; channel < channels; channel += 4) {
      const float4 x = *reinterpret_cast<const float4*>(u + column * stride + channel);
      const float4 v = __ldg(reinterpret_cast<const float4*>(windows.gate_weight + channel));
      logit = fmaf(v.x, x.x, fmaf(v.y, x.y, fmaf(v.z, x.z, fmaf(v.w, x.w, logit))));
    }
    gate = gate_of(logit);
  }
  columns.gate[column] = gate;
}

__device__ __forceinline__ void load_vector(const float* from, float (&x)[1]) { x[0] = *from; }
__device__ __forceinline__ void load_vector(const float* from, float (&x)[4]) {
  const float4 vector = *reinterpret_cast<const float4*>(from);
  x[0] = vector.x, x[1] = vector.y, x[2] = vector.z, x[3] = vector.w;
}

// The warp's sum of gate * row over the valid columns of [begin, end), where row_of(column) has `width` floats, of
// which a lane loads `vector` at once. A group of lanes holds a row, and the groups take every so manyth column.
template <int vector, class RowOf>
__device__ __forceinline__ void sum_columns(const Columns& columns, int begin, int end, int width, const RowOf& row_of,
                                            float* to) {
  const int lane = work_out_here(threadIdx.x % 32);
  int lanes = 1;
  while (lanes < 32 && lanes * vector < width) lanes *= 2;
  const int group = lane / lanes, groups = 32 / lanes;
  for (int first = 0; first < width; first += lanes * vector) {
    const int channel = first + lane % lanes * vector;
    float sum[vector] = {};
#pragma unroll 2
    for (int column = begin + group; column < end; column += groups) {
      if (columns.entry[column] < 0 || channel >= width) continue;
      float x[vector];
      load_vector(row_of(column) + channel, x);
#pragma unroll
      for (int i = 0; i < vector; ++i) sum[i] = fmaf(columns.gate[column], x[i], sum[i]);
    }
#pragma unroll
    for (int i = 0; i < vector; ++i)
      for (int distance = lanes; distance < 32; distance *= 2) sum[i] += __shfl_xor_sync(all_lanes, sum[i], distance);
    if (group > 0 || channel >= width) continue;
#pragma unroll
    for (int i = 0; i < vector; ++i) to[channel + i] = sum[i];
  }
}

// Every part of the tile into `parts` [num_parts, stride].
template <int channels>
__device__ __forceinline__ void sum_parts(const Windows& windows, const Tile& tile, const Columns& columns,
                                          const float* u, int u_stride, float* parts, int stride) {
  const int thread = work_out_here(threadIdx.x), lane = thread % 32;
  for (int p = thread / 32; p < tile.num_parts; p += work_out_here(blockDim.x) / 32) {
    const Slot& slot = tile.slots[slot_of_part(tile, p)];
    const int begin = slot.pool_begin + (p - slot.first_part) * part_columns;
    const int end = begin + part_columns < slot.pool_end ? begin + part_columns : slot.pool_end;
    float* const part = parts + p * stride;
    const auto values_of = [&](int column) {
      return windows.values + int64_t(columns.entry[column]) * windows.num_values;
    };
    if (windows.num_values % 4 == 0) sum_columns<4>(columns, begin, end, windows.num_values, values_of, part);
    else sum_columns<1>(columns, begin, end, windows.num_values, values_of, part);
    if constexpr (channels > 0)
      sum_columns<4>(
          columns, begin, end, channels, [&](int column) { return u + column * u_stride; }, part + windows.num_values);
    float gates = begin + lane < end ? columns.gate[begin + lane] : 0.0f;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) gates += __shfl_xor_sync(all_lanes, gates, distance);
    if (lane == 0) part[windows.columns()] = gates;
  }
}

// Adds the parts up into `totals` [num_slots, stride]; those of a row that goes on from the last tile are added to its
// total.
__device__ __forceinline__ void add_parts(const Tile& tile, int num_columns, const float* parts, int stride,
                                          float* totals) {
  const int columns = work_out_here(num_columns);
  for (int i = work_out_here(threadIdx.x); i < tile.num_slots * columns; i += work_out_here(blockDim.x)) {
    const int s = i / columns, column = i % columns;
    const int end = s + 1 < tile.num_slots ? tile.slots[s + 1].first_part : tile.num_parts;
    float* const total = totals + s * stride + column;
    float sum = s == 0 && tile.continues ? *total : 0.0f;
    for (int p = tile.slots[s].first_part; p < end; ++p) sum += parts[p * stride + column];
    *total = sum;
  }
}

}  // namespace dendritic_bert
