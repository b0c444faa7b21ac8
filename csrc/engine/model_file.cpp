#include "model_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace dendritic_bert::engine {
namespace {

// What the file begins with, and one of the entries that follow it. The checksum is of everything behind the header.
struct FileHeader {
  char magic[8];
  uint32_t version, num_arrays;
  uint64_t size, checksum;
};
struct FileEntry {
  char name[24];  // filled up with zeros
  uint32_t type, num_dimensions;
  int64_t shape[most_dimensions];
  uint64_t offset;
};
constexpr size_t most_arrays = 256;  // five times as many as a model has; each is looked for among those before it
static_assert(sizeof(FileHeader) == 32 && sizeof(FileEntry) == 80);

int64_t bytes_per_element(ElementType type) {
  switch (type) {
    case ElementType::uint8:
    case ElementType::int8: return 1;
    case ElementType::int16:
    case ElementType::bfloat16:
    case ElementType::float16: return 2;
    case ElementType::int32:
    case ElementType::float32: return 4;
    case ElementType::int64:
    case ElementType::float64: return 8;
  }
  return 0;
}

template <class T>
T read(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

}  // namespace

void ModelFile::read_entries(std::string_view bytes) {
  if (bytes.size() < sizeof(FileHeader) || std::memcmp(bytes.data(), magic, 8) != 0)
    return fail("it is no model of the engine: it does not begin with DSNMODEL");
  const auto header = read<FileHeader>(bytes.data());
  if (header.version != version)
    return fail("its format is version " + std::to_string(header.version) + ", and this engine reads version " +
                std::to_string(version) + ": export the model again");
  if (header.size != bytes.size())
    return fail("it has " + std::to_string(bytes.size()) + " bytes and should have " + std::to_string(header.size) +
                ": copy it again");
  const std::string_view body = bytes.substr(sizeof(FileHeader));
  if (header.num_arrays > std::min(body.size() / sizeof(FileEntry), most_arrays))
    return fail("its list of arrays does not fit in it");
  if (checksum(body) != header.checksum) return fail("its checksum differs: it is damaged, copy it again");
  for (uint32_t i = 0; i < header.num_arrays && is_valid(); ++i)
    read_entry(bytes, sizeof(FileHeader) + i * sizeof(FileEntry));
}

void ModelFile::read_entry(std::string_view bytes, size_t place) {
  const auto entry = read<FileEntry>(bytes.data() + place);
  const std::string_view name(bytes.data() + place, strnlen(entry.name, sizeof entry.name));
  AnyArray array;
  array.type = ElementType(entry.type);
  const int64_t element = bytes_per_element(array.type);
  array.num_dimensions = int(std::min<uint32_t>(entry.num_dimensions, most_dimensions + 1));
  array.size = 1;
  bool fits = !has(name) && element > 0 && array.num_dimensions <= most_dimensions && entry.offset % alignment == 0 &&
              entry.offset <= bytes.size();
  for (int i = 0; fits && i < array.num_dimensions; ++i) {
    array.shape[i] = entry.shape[i];
    fits = array.shape[i] >= 0 && array.shape[i] <= std::numeric_limits<int32_t>::max() &&
           !__builtin_mul_overflow(array.size, array.shape[i], &array.size);
  }
  if (!fits || array.size > int64_t(bytes.size() - entry.offset) / element)
    return fail("the entry of its array " + std::string(name) + " does not fit in it or is there twice");
  array.data = bytes.data() + entry.offset;
  entries_.push_back({name, array});
}

const ModelFile::Entry* ModelFile::find(std::string_view name) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.name == name; });
  return found == entries_.end() ? nullptr : &*found;
}

AnyArray ModelFile::any_array(std::string_view name, int num_dimensions) {
  const Entry* entry = find(name);
  if (!entry) fail("it has no array " + std::string(name));
  else if (entry->array.num_dimensions != num_dimensions)
    fail("its array " + std::string(name) + " has " + std::to_string(entry->array.num_dimensions) + " dimensions");
  return is_valid() ? entry->array : AnyArray();
}

void ModelFile::expect_shape(std::string_view name, const int64_t* found, std::initializer_list<int64_t> shape) {
  if (!std::equal(shape.begin(), shape.end(), found)) fail("its array " + std::string(name) + " has another shape");
}

int64_t ModelFile::integer(std::string_view name, int64_t lowest, int64_t highest) {
  const Array<int64_t> found = array<int64_t>(name, 0);
  if (!is_valid()) return lowest;
  const int64_t value = *found.data;
  if (value >= lowest && value <= highest) return value;
  fail("its " + std::string(name) + " is " + std::to_string(value) + ", which is out of range");
  return lowest;
}

double ModelFile::number(std::string_view name) {
  const Array<double> found = array<double>(name, 0);
  if (is_valid() && !std::isfinite(*found.data)) fail("its " + std::string(name) + " is not finite");
  return is_valid() ? *found.data : 0;
}

std::string ModelFile::text(std::string_view name) {
  const Array<uint8_t> bytes = array<uint8_t>(name, 1);
  return std::string(reinterpret_cast<const char*>(bytes.data), size_t(bytes.size));
}

std::vector<std::string_view> ModelFile::strings(std::string_view name) {
  const Array<uint8_t> bytes = array<uint8_t>(name, 1);
  const Array<int64_t> ends = array<int64_t>(std::string(name) + "_ends", 1);
  std::vector<std::string_view> found;
  int64_t start = 0;
  for (const int64_t end : ends) {
    if (end < start || end > bytes.size) fail("a string of its " + std::string(name) + " does not fit in it");
    if (!is_valid()) return {};
    found.push_back({reinterpret_cast<const char*>(bytes.data) + start, size_t(end - start)});
    start = end;
  }
  return found;
}

uint64_t checksum(std::string_view bytes) {
  constexpr uint64_t prime1 = 0x9E3779B185EBCA87, prime2 = 0xC2B2AE3D27D4EB4F, prime3 = 0x165667B19E3779F9,
                     prime4 = 0x85EBCA77C2B2AE63, prime5 = 0x27D4EB2F165667C5;
  const auto rotate = [](uint64_t x, int by) { return x << by | x >> (64 - by); };
  const auto round = [&](uint64_t lane, uint64_t input) { return rotate(lane + input * prime2, 31) * prime1; };
  const char *at = bytes.data(), *end = at + bytes.size();
  uint64_t hash = prime5;
  if (bytes.size() >= 32) {
    uint64_t lanes[4] = {prime1 + prime2, prime2, 0, uint64_t(0) - prime1};
    for (; end - at >= 32; at += 32)
      for (int i = 0; i < 4; ++i) lanes[i] = round(lanes[i], read<uint64_t>(at + 8 * i));
    hash = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
    for (uint64_t lane : lanes) hash = (hash ^ round(0, lane)) * prime1 + prime4;
  }
  hash += bytes.size();
  for (; end - at >= 8; at += 8) hash = rotate(hash ^ round(0, read<uint64_t>(at)), 27) * prime1 + prime4;
  for (; end - at >= 4; at += 4) hash = rotate(hash ^ read<uint32_t>(at) * prime1, 23) * prime2 + prime3;
  for (; at < end; ++at) hash = rotate(hash ^ uint8_t(*at) * prime5, 11) * prime1;
  hash = (hash ^ hash >> 33) * prime2;
  hash = (hash ^ hash >> 29) * prime3;
  return hash ^ hash >> 32;
}

}  // namespace dendritic_bert::engine
