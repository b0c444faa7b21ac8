// What the targets share: an input that is read piece by piece, and a check that ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

namespace dendritic_bert::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(reinterpret_cast<const char*>(data)), left_(size) {}

  size_t left() const { return left_; }

  // The next number; what the input does not have of it is 0.
  template <class T>
  T take() {
    T value = {};
    const size_t size = left_ < sizeof(T) ? left_ : sizeof(T);
    if (size) std::memcpy(&value, at_, size);
    skip(size);
    return value;
  }

  // The bytes before the next `end`, which is left out; or all that are left.
  std::string_view take_until(char end) {
    const void* found = left_ ? std::memchr(at_, end, left_) : nullptr;
    const size_t size = found ? size_t(static_cast<const char*>(found) - at_) : left_;
    const std::string_view taken(at_, size);
    skip(size + (found ? 1 : 0));
    return taken;
  }

 private:
  void skip(size_t size) {
    at_ += size;
    left_ -= size;
  }

  const char* at_;
  size_t left_;
};

// A copy in an allocation of exactly its size, beyond which AddressSanitizer sees every read.
template <class T>
struct Copy {
  std::unique_ptr<T[]> data;
  size_t size;

  Copy(const T* from, size_t size_) : data(new T[size_]), size(size_) {
    if (size) std::memcpy(data.get(), from, size * sizeof(T));
  }
};

inline void check(bool condition) {
  if (!condition) std::abort();
}

}  // namespace dendritic_bert::fuzz
