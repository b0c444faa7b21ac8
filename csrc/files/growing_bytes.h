// Bytes that are appended to without a check for each: whoever writes asks for room first.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

namespace dendritic_bert::files {

class GrowingBytes {
 public:
  std::string_view view() const { return {bytes_.get(), size_}; }

  // Room for `size` bytes behind those that are there; end_at() says where they end.
  char* make_room(size_t size) {
    if (capacity_ - size_ < size) grow(size);
    return bytes_.get() + size_;
  }

  void clear() { size_ = 0; }

  void end_at(const char* end) { size_ = size_t(end - bytes_.get()); }

  void append(std::string_view bytes) {
    char* out = make_room(bytes.size());
    if (!bytes.empty()) std::memcpy(out, bytes.data(), bytes.size());
    size_ += bytes.size();
  }

 private:
  struct Free {
    void operator()(char* bytes) const { std::free(bytes); }
  };

  void grow(size_t size) {
    const size_t capacity = std::max(size_ + size, capacity_ + capacity_ / 4);
    void* bytes = std::realloc(bytes_.get(), capacity);
    if (!bytes) throw std::bad_alloc();
    static_cast<void>(bytes_.release());
    bytes_.reset(static_cast<char*>(bytes));
    capacity_ = capacity;
  }

  std::unique_ptr<char, Free> bytes_;
  size_t size_ = 0, capacity_ = 0;
};

}  // namespace dendritic_bert::files
