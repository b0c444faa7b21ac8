// The bytes of a file in memory: mapped where the system can, or else read.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#if !defined(DENDRITIC_BERT_NO_MMAP) && (defined(__unix__) || defined(__APPLE__))
#define DENDRITIC_BERT_HAS_MMAP
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace dendritic_bert::engine {

class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }

#ifdef DENDRITIC_BERT_HAS_MMAP
  ~MappedFile() {
    if (data_) munmap(data_, size_);
  }

  // False, and errno says why, if it cannot be read.
  bool open(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    struct stat status;
    bool is_open = fstat(file, &status) == 0;
    if (is_open && status.st_size > 0) {
      void* const mapped = mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
      is_open = mapped != MAP_FAILED;
      if (is_open) data_ = mapped, size_ = size_t(status.st_size);
    }
    ::close(file);
    return is_open;
  }
#else
  ~MappedFile() { std::free(data_); }

  bool open(const std::string& path) {
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    if (!file) return false;
    bool is_open = std::fseek(file, 0, SEEK_END) == 0;
    const long size = is_open ? std::ftell(file) : -1;
    is_open = size >= 0 && std::fseek(file, 0, SEEK_SET) == 0;
    if (is_open && size > 0) {
      data_ = std::aligned_alloc(64, (size_t(size) + 63) / 64 * 64);
      is_open = data_ && std::fread(data_, 1, size_t(size), file) == size_t(size);
      if (is_open) size_ = size_t(size);
    }
    std::fclose(file);
    return is_open;
  }
#endif

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace dendritic_bert::engine
