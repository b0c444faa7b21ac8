// The arrays that the kernels of a call may touch, each with its bounds. The binding adds the memory of every tensor
// that it hands over; races.cpp checks every access against them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace cuda_on_cpu {

struct Array {
  uintptr_t begin;
  size_t bytes;
  bool holds(uintptr_t address, size_t size) const {
    return address >= begin && address - begin <= bytes && size <= bytes - (address - begin);
  }
};
inline std::vector<Array> arrays;

inline void add_array(const void* memory, size_t bytes) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  const auto known =
      std::find_if(arrays.begin(), arrays.end(), [&](const Array& array) { return array.begin == begin; });
  if (known == arrays.end()) arrays.push_back({begin, bytes});
  else known->bytes = std::max(known->bytes, bytes);
}

inline bool is_in_an_array(const void* address, size_t bytes) {
  return std::any_of(arrays.begin(), arrays.end(),
                     [&](const Array& array) { return array.holds(reinterpret_cast<uintptr_t>(address), bytes); });
}

// The arrays of one call of an op, which are forgotten when it ends.
struct CallArrays {
  CallArrays() = default;
  CallArrays(const CallArrays&) = delete;
  ~CallArrays() { arrays.clear(); }
};

// While a kernel runs, every array that its arguments point to lies in a place of its own with nothing beside it that
// may be touched. So an access that strays from one array does not land in another, even if both are parts of one
// tensor. An array larger than `most_bytes` stays where it is.
class ArraysApart {
 public:
  ArraysApart(void* arguments, size_t bytes) : before_(arrays) {
    for (size_t i = 0; i + sizeof(uintptr_t) <= bytes; i += sizeof(uintptr_t)) {
      uintptr_t word;
      std::memcpy(&word, static_cast<char*>(arguments) + i, sizeof word);
      for (size_t a = 0; a < arrays.size(); ++a)
        if (word == before_[a].begin && arrays[a].bytes > 0 && arrays[a].bytes <= most_bytes) {
          if (arrays[a].begin == word) move(arrays[a]);
          std::memcpy(static_cast<char*>(arguments) + i, &arrays[a].begin, sizeof word);
        }
    }
  }
  ~ArraysApart() {
    for (size_t a = 0; a < arrays.size(); ++a)
      if (arrays[a].begin != before_[a].begin) put_back(arrays[a], before_[a]);
    arrays = before_;
  }
  ArraysApart(const ArraysApart&) = delete;

 private:
  static constexpr size_t page = 4096, around = 1 << 20, most_bytes = 64 << 20;
  std::vector<Array> before_;

  static size_t mapped(const Array& array) { return array.begin % page + array.bytes + 2 * around; }

  static void move(Array& array) {
    void* memory =
        mmap(nullptr, mapped(array), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory) + around + array.begin % page;
    std::memcpy(reinterpret_cast<void*>(begin), reinterpret_cast<const void*>(array.begin), array.bytes);
    array.begin = begin;
  }

  static void put_back(const Array& moved, const Array& before) {
    void* const own = reinterpret_cast<void*>(before.begin);
    const void* const used = reinterpret_cast<const void*>(moved.begin);
    if (std::memcmp(own, used, moved.bytes) != 0) std::memcpy(own, used, moved.bytes);
    munmap(reinterpret_cast<void*>(moved.begin - before.begin % page - around), mapped(before));
  }
};

}  // namespace cuda_on_cpu
