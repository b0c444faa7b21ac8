// WordPiece over a vocabulary: the longest entry that a word begins with, then the longest that goes on from there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace dendritic_bert::engine {

// A hash table from strings to ids, in which the longest beginning of a text is looked up.
class PrefixTable {
 public:
  explicit PrefixTable(size_t num_strings) {
    size_t size = 16;
    while (size < 2 * num_strings) size *= 2;
    slots_.resize(size);
    may_be_there_.resize(size / 8);
  }

  // The first of two equal strings stays.
  void insert(std::string_view text, int32_t id) {
    uint64_t hash = start;
    for (char byte : text) hash = extend(hash, byte);
    size_t place = first_place(hash);
    while (slots_[place].length) place = (place + 1) & (slots_.size() - 1);
    may_be_there_[filter_bit(hash) / 32] |= uint32_t(1) << filter_bit(hash) % 32;
    slots_[place] = {uint32_t(hash >> 32), uint32_t(strings_.size()), uint32_t(text.size()), id};
    strings_.insert(strings_.end(), text.begin(), text.end());
    longest_ = std::max(longest_, text.size());
  }

  struct Match {
    size_t length;  // 0 for none
    int32_t id;
  };

  // The longest string that the text begins with. Most words are looked up once: the whole text comes first, and each
  // shorter beginning has the hash that the one before had before its last byte.
  Match find_longest(const char* text, size_t size) const {
    size_t length = std::min(size, longest_);
    uint64_t hash = start;
    for (size_t i = 0; i < length; ++i) hash = extend(hash, text[i]);
    for (; length; hash = (hash * inverse_prime) ^ uint8_t(text[--length])) {
      if (!(may_be_there_[filter_bit(hash) / 32] >> filter_bit(hash) % 32 & 1)) continue;
      for (size_t place = first_place(hash); slots_[place].length; place = (place + 1) & (slots_.size() - 1)) {
        const Slot& slot = slots_[place];
        if (slot.tag == uint32_t(hash >> 32) && slot.length == length &&
            std::memcmp(strings_.data() + slot.offset, text, length) == 0)
          return {length, slot.id};
      }
    }
    return {0, 0};
  }

 private:
  struct Slot {
    uint32_t tag = 0, offset = 0, length = 0;
    int32_t id = 0;
  };

  // FNV-1a (Fowler, Noll and Vo), whose middle bits choose the slot.
  static constexpr uint64_t start = 0xCBF29CE484222325, prime = 0x100000001B3;
  static constexpr uint64_t inverse_prime = 0xCE965057AFF6957B;  // modulo 2^64
  static_assert(prime * inverse_prime == 1);
  static uint64_t extend(uint64_t hash, char byte) { return (hash ^ uint8_t(byte)) * prime; }
  size_t first_place(uint64_t hash) const { return size_t(hash ^ hash >> 29) & (slots_.size() - 1); }

  size_t filter_bit(uint64_t hash) const { return size_t(hash >> 40) & (may_be_there_.size() * 32 - 1); }

  // A bit for the hash of every string, four for each slot and so 8 or more for a string. It answers for most
  // beginnings that are no string, without a line of the table that is in no cache.
  std::vector<uint32_t> may_be_there_;
  std::vector<Slot> slots_;
  std::vector<char> strings_;
  size_t longest_ = 0;
};

struct VocabularyEntry {
  std::string_view token;
  int32_t id;
};

struct WordPieceSettings {
  std::string continuing_prefix;
  int32_t unknown_id;
  size_t most_characters;  // a word of more of them is unknown
};

// Immutable, so that threads share it.
class Vocabulary {
 public:
  Vocabulary(const std::vector<VocabularyEntry>& entries, WordPieceSettings settings);

  size_t most_characters() const { return settings_.most_characters; }

  // Writes at most max(1, size) ids of a word of `size` bytes, and returns how many.
  size_t tokenize(const char* word, size_t size, int32_t* ids) const;
  // Writes also behind which byte of the word each of its pieces ends.
  size_t tokenize(const char* word, size_t size, int32_t* ids, uint32_t* ends) const;
  int32_t largest_id() const { return largest_id_; }

 private:
  template <class Write>
  size_t for_each_piece(const char* word, size_t size, const Write& write) const;

  WordPieceSettings settings_;
  PrefixTable initial_, continuing_;
  int32_t largest_id_;
};

}  // namespace dendritic_bert::engine
