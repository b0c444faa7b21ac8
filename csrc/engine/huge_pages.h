// Memory that is read at random, for which the system is asked to take pages of 2 MB. With the cache of words in pages
// of 4 kB a text took 0.38 us in one process and 0.52 us in another; with this, 0.38 to 0.41 us in each.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "../common/allocated.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace dendritic_bert::engine::huge_pages {

constexpr size_t page = size_t(1) << 21;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

template <class T>
using Array = std::unique_ptr<T[], Free>;

// Elements without a destructor, as their default constructor makes them.
template <class T>
Array<T> make_array(size_t size) {
  const size_t bytes = size * sizeof(T), alignment = bytes < page ? alignof(T) : page;
  void* const memory = allocated(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment));
#ifdef __linux__
  if (bytes >= page) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  T* const elements = static_cast<T*>(memory);
  std::uninitialized_value_construct_n(elements, size);
  return Array<T>(elements);
}

}  // namespace dendritic_bert::engine::huge_pages
