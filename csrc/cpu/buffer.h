// Scratch memory of the kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "../common/allocated.h"

namespace dendritic_bert {
namespace {

// Floats that begin on a cache line, uninitialised. They are aligned by hand: the dozen buffers of a call of the int8
// windows took 0.7 us with aligned_alloc, which gives back what lies before the aligned part and thereby makes glibc
// tidy up its lists. One row takes 0.8 us.
struct Buffer {
  float* data;
  explicit Buffer(int64_t size) : memory_(allocated(std::malloc(size_t(std::max<int64_t>(size, 1)) * 4 + 63))) {
    data = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory_) + 63) / 64 * 64);
  }
  ~Buffer() { std::free(memory_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator float*() const { return data; }

 private:
  void* memory_;
};

// The same for elements of another type.
template <class T>
struct Array {
  Buffer memory;
  explicit Array(int64_t size) : memory((size * int64_t(sizeof(T)) + 3) / 4) {}
  operator T*() const { return reinterpret_cast<T*>(memory.data); }
};

}  // namespace
}  // namespace dendritic_bert
