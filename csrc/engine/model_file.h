// The file of a model (docs/engine.md): named arrays in memory that whoever made the file may have filled with
// anything. Nothing here throws: the first thing that is wrong is kept, and later reads give empty arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace dendritic_bert::engine {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the numbers of a file are little-endian");

// The codes in the file.
enum class ElementType : uint32_t { uint8, int8, int16, int32, int64, bfloat16, float16, float32, float64 };

constexpr ElementType element_type_of(const uint8_t*) { return ElementType::uint8; }
constexpr ElementType element_type_of(const int8_t*) { return ElementType::int8; }
constexpr ElementType element_type_of(const int16_t*) { return ElementType::int16; }
constexpr ElementType element_type_of(const int32_t*) { return ElementType::int32; }
constexpr ElementType element_type_of(const int64_t*) { return ElementType::int64; }
constexpr ElementType element_type_of(const float*) { return ElementType::float32; }
constexpr ElementType element_type_of(const double*) { return ElementType::float64; }

constexpr int most_dimensions = 5;

// A view of an array in the file; a scalar has no dimension.
struct AnyArray {
  ElementType type = ElementType::uint8;
  int num_dimensions = 0;
  int64_t shape[most_dimensions] = {};
  int64_t size = 0;  // elements
  const void* data = nullptr;
};

template <class T>
struct Array {
  const T* data = nullptr;
  int64_t size = 0;
  int64_t shape[most_dimensions] = {};

  const T* begin() const { return data; }
  const T* end() const { return data + size; }
};

class ModelFile {
 public:
  static constexpr char magic[9] = "DSNMODEL";
  static constexpr uint32_t version = 1;
  static constexpr size_t alignment = 64;  // of arrays, a cache line

  // `bytes` must outlive whatever is read from them, and begin at a multiple of `alignment`.
  explicit ModelFile(std::string_view bytes) { read_entries(bytes); }

  // What is wrong with the file, in a sentence; empty if nothing is.
  const std::string& error() const { return error_; }
  bool is_valid() const { return error_.empty(); }
  void fail(std::string error) {
    if (is_valid()) error_ = std::move(error);
  }
  void expect(bool condition, const char* error) {
    if (!condition) fail(error);
  }

  bool has(std::string_view name) const { return find(name) != nullptr; }
  // An array of any type; fails if there is none of this name and number of dimensions.
  AnyArray any_array(std::string_view name, int num_dimensions);

  template <class T>
  Array<T> array(std::string_view name, int num_dimensions) {
    const AnyArray found = any_array(name, num_dimensions);
    Array<T> typed;
    if (found.type != element_type_of(typed.data)) fail("its array " + std::string(name) + " has another element type");
    if (!is_valid()) return typed;
    typed.data = static_cast<const T*>(found.data);
    typed.size = found.size;
    for (int i = 0; i < most_dimensions; ++i) typed.shape[i] = found.shape[i];
    return typed;
  }

  // The same, of exactly this shape.
  template <class T>
  const T* array_of(std::string_view name, std::initializer_list<int64_t> shape) {
    const Array<T> found = array<T>(name, int(shape.size()));
    expect_shape(name, found.shape, shape);
    return found.data;
  }
  void expect_shape(std::string_view name, const int64_t* found, std::initializer_list<int64_t> shape);

  int64_t integer(std::string_view name, int64_t lowest, int64_t highest);
  double number(std::string_view name);
  bool flag(std::string_view name) { return integer(name, 0, 1) != 0; }
  std::string text(std::string_view name);
  // Strings one behind another in the array `name`, each of which ends where the array `name`_ends says.
  std::vector<std::string_view> strings(std::string_view name);

 private:
  struct Entry {
    std::string_view name;
    AnyArray array;
  };

  const Entry* find(std::string_view name) const;
  void read_entries(std::string_view bytes);
  void read_entry(std::string_view bytes, size_t place);

  std::vector<Entry> entries_;
  std::string error_;
};

// XXH64 with seed 0 (Collet, github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
uint64_t checksum(std::string_view bytes);

}  // namespace dendritic_bert::engine
