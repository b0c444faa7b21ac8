// The window layers of a tile: u of every column in shared memory, in place from layer to layer. Layer 0 adds up
// entries of the taps' table, one for each tap; a further layer multiplies the neighbours of every column by a matrix
// for each tap. A warp computes 32 columns of u, and holds their sums in registers until every warp has read what it
// needs.
//
// Channels is M, a multiple of 16. A column of u takes M + 8 floats, so that the fragments which the lanes of a warp
// read at once lie in different banks; the one in front of the first is zero, and stands for a column outside the row.
#pragma once

#include "mma.cuh"
#include "window_rows.cuh"

namespace dendritic_bert {

template <int channels>
constexpr int column_stride = channels + 8;
// Of the matrices in shared memory, [R, M, stride]: eight more bfloat16 put the rows that ldmatrix reads in different
// banks.
template <class Weight, int channels>
constexpr int matrix_stride = sizeof(Weight) == 2 ? channels + 8 : channels;

// As torch's relu, under which NaN stays NaN.
__device__ __forceinline__ float rectify(float x) { return x < 0 ? 0.0f : x; }

// u0 of every column of the tile.
template <int channels>
__device__ __forceinline__ void first_layer(const Windows& windows, const Columns& columns, int num_columns, float* u) {
  constexpr int vectors = channels / 4;
  const int taps = windows.num_taps();
  for (int i = work_out_here(threadIdx.x); i < num_columns * vectors; i += work_out_here(blockDim.x)) {
    const int column = i / vectors, channel = i % vectors * 4;
    float4 sum = make_float4(0, 0, 0, 0);
    if (columns.entry[column] >= 0) {
      const int begin = columns.bounds[column] & 0xffff, end = columns.bounds[column] >> 16;
      sum = __ldg(reinterpret_cast<const float4*>(windows.bias + channel));
#pragma unroll(channels < 64 ? 3 : 1)
      for (int tap = 0; tap < taps; ++tap) {
        const int from = column + tap - windows.radius;
        const int32_t entry = from >= begin && from < end ? columns.entry[from] : -1;
        if (entry < 0) continue;
        const float4 x =
            __ldg(reinterpret_cast<const float4*>(windows.taps + (int64_t(entry) * taps + tap) * channels + channel));
        sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
      }
      sum = make_float4(rectify(sum.x), rectify(sum.y), rectify(sum.z), rectify(sum.w));
    }
    *reinterpret_cast<float4*>(u + column * column_stride<channels> + channel) = sum;
  }
}

// The matrices of a layer into shared memory, 16 bytes at a time.
template <class Weight, int channels>
__device__ __forceinline__ void stage_matrices(const Weight* from, int taps, Weight* to) {
  constexpr int values = 16 / int(sizeof(Weight)), vectors = channels / values;
  for (int i = work_out_here(threadIdx.x); i < taps * channels * vectors; i += work_out_here(blockDim.x))
    *reinterpret_cast<float4*>(to + i / vectors * matrix_stride<Weight, channels> + i % vectors * values) =
        __ldg(reinterpret_cast<const float4*>(from) + i);
}

// The sums of a warp's 32 columns in the layout of mma.cuh, for both halves of the columns and each eight channels. Of
// a lane's four columns, the first two are in half 0.
template <int channels>
struct WarpSums {
  float x[2][channels / 8][4];
};

// Adds the four rows that the lane reads times one matrix.
template <int channels>
__device__ __forceinline__ void multiply(const float* const (&row)[4], const __nv_bfloat16* matrix,
                                         WarpSums<channels>& sums) {
  constexpr int stride = matrix_stride<__nv_bfloat16, channels>;
  const int lane = work_out_here(threadIdx.x % 32), pair = 2 * (lane % 4);
  const __nv_bfloat16* const own = matrix + lane % 16 * stride + lane / 16 * 8;
#pragma unroll(channels < 64 ? 4 : 1)
  for (int k = 0; k < channels; k += 16) {
    uint32_t a[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i / 2][i % 2] = as_bfloat16_pair(*reinterpret_cast<const float2*>(row[i] + k + pair));
      a[i / 2][2 + i % 2] = as_bfloat16_pair(*reinterpret_cast<const float2*>(row[i] + k + 8 + pair));
    }
#pragma unroll
    for (int n = 0; n < channels; n += 16) {
      uint32_t b[4];
      load_matrices(b, own + k * stride + n);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        multiply_matrices(sums.x[half][n / 8], a[half], b[0], b[1]);
        multiply_matrices(sums.x[half][n / 8 + 1], a[half], b[2], b[3]);
      }
    }
  }
}

// The exact form, by fused multiply-adds.
template <int channels>
__device__ __forceinline__ void multiply(const float* const (&row)[4], const float* matrix, WarpSums<channels>& sums) {
  const float* const own = matrix + work_out_here(threadIdx.x % 4) * 2;
#pragma unroll 1
  for (int k = 0; k < channels; k += 2) {
    float2 a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = *reinterpret_cast<const float2*>(row[i] + k);
#pragma unroll
    for (int n = 0; n < channels / 8; ++n)
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const float2 w = *reinterpret_cast<const float2*>(own + (k + q) * channels + 8 * n);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float* const sum = sums.x[i / 2][n] + i % 2 * 2;
          sum[0] = fmaf(q ? a[i].y : a[i].x, w.x, sum[0]);
          sum[1] = fmaf(q ? a[i].y : a[i].x, w.y, sum[1]);
        }
      }
  }
}

// The column in the tile of the lane's row i.
__device__ __forceinline__ int column_of_lane(int thread, int i) { return thread / 32 * 32 + 8 * i + thread % 32 / 4; }

// The bias and the products of layer `layer` for the warp's columns. `u` is the first column, and the zero lies in
// front.
template <class Weight, int channels>
__device__ __forceinline__ void multiply_taps(const Windows& windows, int layer, const Columns& columns, const float* u,
                                              const Weight* matrices, WarpSums<channels>& sums) {
  const int thread = work_out_here(threadIdx.x), pair = thread % 4 * 2;
#pragma unroll
  for (int n = 0; n < channels / 8; ++n) {
    const float2 bias = __ldg(reinterpret_cast<const float2*>(windows.bias + layer * channels + 8 * n + pair));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sums.x[half][n][0] = sums.x[half][n][2] = bias.x;
      sums.x[half][n][1] = sums.x[half][n][3] = bias.y;
    }
  }
  uint32_t bounds[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) bounds[i] = columns.bounds[column_of_lane(thread, i)];
#pragma unroll 1
  for (int tap = 0; tap < windows.num_taps(); ++tap) {
    const int offset = (tap - windows.radius) * (1 << layer);
    const float* row[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int from = column_of_lane(thread, i) + offset;
      const bool inside = from >= int(bounds[i] & 0xffff) && from < int(bounds[i] >> 16);
      row[i] = u + (inside ? from : -1) * column_stride<channels>;
    }
    multiply<channels>(row, matrices + tap * channels * matrix_stride<Weight, channels>, sums);
  }
}

// u + relu(sums), and 0 where the token is not valid.
template <int channels>
__device__ __forceinline__ void add_layer(const Columns& columns, const WarpSums<channels>& sums, float* u) {
  const int thread = work_out_here(threadIdx.x);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int column = column_of_lane(thread, i);
    const bool valid = columns.entry[column] >= 0;
#pragma unroll
    for (int n = 0; n < channels / 8; ++n) {
      float2* const at = reinterpret_cast<float2*>(u + column * column_stride<channels> + 8 * n + thread % 4 * 2);
      const float* sum = sums.x[i / 2][n] + i % 2 * 2;
      const float2 before = *at;
      *at = valid ? make_float2(before.x + rectify(sum[0]), before.y + rectify(sum[1])) : make_float2(0, 0);
    }
  }
}

// All layers of the tile. `u` is not read before, and all threads may read it afterwards.
template <class Weight, int channels>
__device__ __forceinline__ void window_layers(const Windows& windows, const Columns& columns, int num_columns, float* u,
                                              Weight* matrices) {
  const int taps = windows.num_taps();
  const Weight* from = static_cast<const Weight*>(windows.weight);
  const bool has_columns = int(threadIdx.x) / 32 * 32 < num_columns;  // the same for all lanes of a warp
  first_layer<channels>(windows, columns, num_columns, u);
  for (int layer = 1; layer < windows.num_layers; ++layer) {
    stage_matrices<Weight, channels>(from, taps, matrices);
    from += taps * channels * channels;
    __syncthreads();
    WarpSums<channels> sums;
    if (has_columns) multiply_taps<Weight, channels>(windows, layer, columns, u, matrices, sums);
    __syncthreads();  // every warp has read its neighbours and the matrices
    if (has_columns) add_layer<channels>(columns, sums, u);
  }
  __syncthreads();
}

}  // namespace dendritic_bert
