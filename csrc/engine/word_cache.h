// The ids of the words that a thread has met lately. Its size is fixed: a new word takes the place of an older one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "huge_pages.h"

namespace dendritic_bert::engine {

// A word of 1 to 15 bytes, filled up with zeros, and in the sixteenth byte its length.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
struct WordKey {
  static constexpr size_t most_bytes = 15;
  uint64_t low, high;

  WordKey() = default;

  // Reads 16 bytes, whatever the size, of which only the first `size` count.
  WordKey(const char* word, size_t size) {
    std::memcpy(&low, word, 8);
    std::memcpy(&high, word + 8, 8);
    low &= masks[size].low;
    high = (high & masks[size].high) | uint64_t(size) << 56;
  }

 private:
  struct Mask {
    uint64_t low, high;
  };
  static constexpr uint64_t first_bytes(size_t count) {  // of the 8 bytes of a little-endian number
    return count < 8 ? (uint64_t(1) << count * 8) - 1 : ~uint64_t(0);
  }
  static constexpr std::array<Mask, 16> make_masks() {
    std::array<Mask, 16> made = {};
    for (size_t size = 0; size < 16; ++size) made[size] = {first_bytes(size), size < 8 ? 0 : first_bytes(size - 8)};
    return made;
  }
  static const std::array<Mask, 16> masks;
};

inline constexpr std::array<WordKey::Mask, 16> WordKey::masks = WordKey::make_masks();

class WordCache {
 public:
  static constexpr size_t most_ids = 4;

  // Half a cache line. The number of ids stands in the upper half of the byte that has the length of the word.
  struct Entry {
    uint64_t low, high;
    int32_t ids[most_ids];

    size_t num_ids() const { return high >> 60; }
  };

  // 2^log2_lines cache lines of two entries each.
  explicit WordCache(unsigned log2_lines)
      : shift_(64 - log2_lines), lines_(huge_pages::make_array<Line>(size_t(1) << log2_lines)) {}

  struct alignas(64) Line {
    Entry entries[2] = {};  // of length 0, which no word has

    const Entry* find(const WordKey& key) const {
      const bool first = is_of(entries[0], key), second = is_of(entries[1], key);
      // Which of the two it is cannot be predicted, that it is one of them can.
      return (first | second) ? entries + second : nullptr;
    }

    // The word must not be there. The older of the two entries of its line is forgotten.
    void insert(const WordKey& key, const int32_t* ids, size_t num_ids) {
      entries[1] = entries[0];
      entries[0] = {key.low, key.high | uint64_t(num_ids) << 60, {}};
      std::memcpy(entries[0].ids, ids, num_ids * sizeof(int32_t));
    }
  };
  static_assert(sizeof(Line) == 64);

  Line* find_line(const WordKey& key) { return &lines_[place(key)]; }

 private:
  static bool is_of(const Entry& entry, const WordKey& key) {
    return ((entry.low ^ key.low) | ((entry.high ^ key.high) & ~(uint64_t(0xF) << 60))) == 0;
  }

  // The upper bits of a product depend on every bit of its factor.
  size_t place(const WordKey& key) const {
    return size_t((key.low * 0x9E3779B97F4A7C15 + key.high * 0xD6E8FEB86659FD93) >> shift_);
  }

  unsigned shift_;
  huge_pages::Array<Line> lines_;
};

}  // namespace dendritic_bert::engine
