// What every launch needs: the instance of a kernel for a word type and a hidden size, the grid, the block, shared
// memory, and errors. Five shapes are exact for the usual hidden sizes, three serve the other multiples of 8, and one
// the rest.
#pragma once

#include <cstddef>
#include <sstream>
#include <stdexcept>

#include "plan.h"
#include "rows.cuh"

namespace dendritic_bert {

struct Launch {
  const char* name;
  const Tokens& tokens;
  int hidden_size;
  cudaStream_t stream;

  [[noreturn]] void fail(const char* reason) const {
    std::ostringstream message;
    message << "the CUDA kernel of " << name << " could not be launched for " << tokens.rows << " rows, "
            << tokens.total << " tokens, hidden size " << hidden_size << ": " << reason
            << ". Where it asks for more than the GPU has, pass backend=\"triton\" or \"reference\".";
    throw std::runtime_error(message.str());
  }

  void check(cudaError_t error) const {
    if (error != cudaSuccess) fail(cudaGetErrorString(error));
  }

  template <class Kernel, class Arguments>
  void operator()(Kernel kernel, int64_t blocks, int splits, int threads, size_t shared_bytes,
                  const Arguments& arguments) const {
    if (blocks == 0) return;
    if (blocks > INT32_MAX) fail("more than 2^31 - 1 blocks, split the batch");
    if (shared_bytes > 32 * 1024)  // with the static part it may be more than the 48 KB that need no permission
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
    LAUNCH(kernel, dim3(unsigned(blocks), unsigned(splits)), dim3(unsigned(threads)), shared_bytes, stream, arguments);
    check(cudaGetLastError());
  }
};

// Calls `body` with a value of the C++ type of a word: of the parameters, and below of tables, which may also have 8
// bits.
template <class Body>
void with_parameter(WordType type, const Body& body) {
  switch (type) {
    case WordType::bfloat16: return body(__nv_bfloat16{});
    case WordType::float16: return body(__half{});
    default: return body(float{});
  }
}

template <class Body>
void with_table_word(WordType type, const Body& body) {
  switch (type) {
    case WordType::int8: return body(int8_t{});
    case WordType::float8_e4m3: return body(__nv_fp8_e4m3{});
    default: return with_parameter(type, body);
  }
}

// Calls `body` with the Shape for a hidden size; `aligned` says that every address allows 16-byte loads.
template <class Body>
void with_shape(int hidden_size, bool aligned, const Body& body) {
  if (!aligned || hidden_size % 8 || hidden_size > warp_channels) return body(Shape<32, 2, Width::any>{});
  switch (hidden_size) {
    case 128: return body(Shape<16, 1, Width::exact>{});
    case 768: return body(Shape<32, 3, Width::exact>{});
#ifndef FEWER_SHAPES  // a build for tests without these hidden sizes (tests/support/cuda_on_cpu)
    case 256: return body(Shape<32, 1, Width::exact>{});
    case 512: return body(Shape<32, 2, Width::exact>{});
    case 1024: return body(Shape<32, 4, Width::exact>{});
#endif
  }
  if (hidden_size < 256) return body(Shape<32, 1, Width::multiple_of_8>{});
#ifndef FEWER_SHAPES
  if (hidden_size >= 512) return body(Shape<32, 4, Width::multiple_of_8>{});
#endif
  return body(Shape<32, 2, Width::multiple_of_8>{});
}

inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
inline bool is_aligned(const Table& table) { return is_aligned(table.word) && is_aligned(table.context); }

// Shared memory for the sums of a block; with `kept`, also for how many tokens kept each channel.
inline size_t sum_bytes(const Plan& plan, int hidden_size, bool kept) {
  const int rows = rows_of_block(plan, hidden_size), writers = hidden_size > warp_channels ? 1 : plan.warps_per_row;
  return sizeof(float) * size_t(rows * writers) * size_t((hidden_size + 3) / 4 * 4) * (kept ? 2 : 1);
}

inline int64_t blocks_of(const Plan& plan, const Tokens& tokens, int hidden_size) {
  const int rows = rows_of_block(plan, hidden_size);
  return (tokens.rows + rows - 1) / rows;
}

}  // namespace dendritic_bert
