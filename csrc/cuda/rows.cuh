// Rows of the tables in registers. A group of lanes holds one row as vectors of eight channels: lane l of the group has
// the channels [8 * (l + v * lanes), + 8) of vector v.
#pragma once

#include "tokens.cuh"

namespace dendritic_bert {

enum class Width { exact, multiple_of_8, any };  // H = 8 * lanes * vectors; H % 8 == 0; any H, with scalar loads

// How many tokens a group gathers at once: loads in flight, against three times eight floats of registers per vector
// each.
constexpr int usual_unroll(int vectors, Width width) {
  return width == Width::any ? 1 : vectors == 1 ? 4 : vectors == 2 ? 2 : 1;
}

// How the registers of a warp hold rows.
template <int lanes_, int vectors_, Width width_, int unroll_ = usual_unroll(vectors_, width_)>
struct Shape {
  static constexpr int lanes = lanes_, vectors = vectors_, values = 8 * vectors, groups = 32 / lanes;
  static constexpr int channels = lanes * values;  // that a warp holds; the warps of a block share a wider row
  static constexpr Width width = width_;
  static constexpr int unroll = unroll_, step = groups * unroll;  // tokens that a group, and a warp, gathers at once
  using OneByOne = Shape<lanes, vectors, width, 1>;
};

template <class Word>
constexpr bool has_scale = sizeof(Word) == 1;

// Eight channels as float: two 16-byte loads from a float table, one from a 16-bit table, one 8-byte load from an 8-bit
// one.
__device__ __forceinline__ void load8(const float* from, float* x) {
  const float4 a = __ldg(reinterpret_cast<const float4*>(from)), b = __ldg(reinterpret_cast<const float4*>(from) + 1);
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

__device__ __forceinline__ void load8(const __nv_bfloat16* from, float* x) {
  const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from));
  const uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {  // a bfloat16 is the upper half of a float: one shift or mask per channel
    x[2 * i] = __uint_as_float(pairs[i] << 16);
    x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ void load8(const __half* from, float* x) {
  const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from));
  __half2 pairs[4];
  memcpy(pairs, &raw, sizeof raw);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(pairs[i]);
    x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ void load8(const int8_t* from, float* x) {
  const uint2 raw = __ldg(reinterpret_cast<const uint2*>(from));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[i] = float(signed_byte(raw.x, i));
    x[4 + i] = float(signed_byte(raw.y, i));
  }
}

__device__ __forceinline__ void load8(const __nv_fp8_e4m3* from, float* x) {
  const uint2 raw = __ldg(reinterpret_cast<const uint2*>(from));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = i < 2 ? raw.x : raw.y;
    const __half2_raw halves = __nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t(word >> 16 * (i % 2)), __NV_E4M3);
    const float2 pair = __half22float2(__half2(halves));
    x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ float as_float(float x) { return x; }
__device__ __forceinline__ float as_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float as_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float as_float(int8_t x) { return float(x); }
__device__ __forceinline__ float as_float(__nv_fp8_e4m3 x) { return float(x); }

__device__ __forceinline__ void store_as(float* to, float x) { *to = x; }
__device__ __forceinline__ void store_as(__nv_bfloat16* to, float x) { *to = __float2bfloat16(x); }
__device__ __forceinline__ void store_as(__half* to, float x) { *to = __float2half(x); }

// The first channel of this lane's vector v; the warp holds the channels [first_channel, first_channel + S::channels).
template <class S>
__device__ __forceinline__ int channel_of(int first_channel, int v) {
  return first_channel + 8 * (int(threadIdx.x) % S::lanes + v * S::lanes);
}

// This lane's channels of a row, 0 beyond its end; `from` points to the first of them.
template <class S, class T>
__device__ __forceinline__ void load_row(const T* from, int first_channel, int hidden_size, float (&x)[S::values]) {
#pragma unroll
  for (int v = 0; v < S::vectors; ++v) {
    const int channel = channel_of<S>(first_channel, v);
    float* const x8 = x + 8 * v;
    if constexpr (S::width == Width::any) {
#pragma unroll
      for (int i = 0; i < 8; ++i) x8[i] = channel + i < hidden_size ? as_float(from[8 * S::lanes * v + i]) : 0.0f;
    } else if (S::width == Width::exact || channel < hidden_size) {
      load8(from + 8 * S::lanes * v, x8);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) x8[i] = 0;
    }
  }
}

// The tables, their pointers moved to this lane's first channel. The origin of the pointers is hidden from the
// compiler, which would add the lane to the address of every row again: two instructions for each of the eight
// addresses of a step.
template <class S, class Word>
__device__ __forceinline__ Table move_to_lane(Table table, int first_channel) {
  table.word = hide_origin(static_cast<const Word*>(table.word) + channel_of<S>(first_channel, 0));
  table.context = hide_origin(table.context + channel_of<S>(first_channel, 0));
  return table;
}

// Row `row` of a table. Both factors of the offset have 32 bits, so that the address is one wide multiply-add.
template <class S, class T>
__device__ __forceinline__ const T* row_of(const void* table, int32_t row, int hidden_size) {
  const uint32_t bytes = uint32_t(S::width == Width::exact ? S::channels : hidden_size) * uint32_t(sizeof(T));
  return reinterpret_cast<const T*>(static_cast<const char*>(table) + uint64_t(uint32_t(row)) * bytes);
}

// e = word + context, with the word's row times `scale` if the table has scales. The tables are those of move_to_lane.
template <class S, class Word>
__device__ __forceinline__ void embed(const Table& table, int2 rows, float scale, int first_channel,
                                      float (&e)[S::values]) {
  float context[S::values];
  load_row<S>(row_of<S, Word>(table.word, rows.x, table.hidden_size), first_channel, table.hidden_size, e);
  load_row<S>(row_of<S, float>(table.context, rows.y, table.hidden_size), first_channel, table.hidden_size, context);
#pragma unroll
  for (int i = 0; i < S::values; ++i) e[i] = has_scale<Word> ? fmaf(scale, e[i], context[i]) : e[i] + context[i];
}

}  // namespace dendritic_bert
