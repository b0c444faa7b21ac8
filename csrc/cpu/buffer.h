// Scratch memory of the kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace dendritic_bert {
namespace {

// Floats that begin on a cache line, uninitialised.
struct Buffer {
  float* data;
  explicit Buffer(int64_t size)
      : data(static_cast<float*>(std::aligned_alloc(64, size_t(std::max<int64_t>(size, 1) * 4 + 63) / 64 * 64))) {}
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator float*() const { return data; }
};

}  // namespace
}  // namespace dendritic_bert
