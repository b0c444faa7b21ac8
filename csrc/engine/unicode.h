// UTF-8, and what the tokenizer does with a code point.
#pragma once

#include <cstddef>
#include <cstdint>

#include "unicode_tables.h"

namespace dendritic_bert::engine {

inline const Record& find_record(uint32_t code_point) {
  const uint8_t block = block_of[code_point / code_points_per_block];
  return records[record_of[block][code_point % code_points_per_block]];
}

// The code point at `text`, behind which `text` then points. A byte that begins no character of UTF-8, or a character
// that ends early or is longer than it need be, a surrogate or beyond the last code point, is U+FFFD for one byte.
inline uint32_t decode_utf8(const char*& text, const char* end) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text);
  const uint8_t first = bytes[0];
  if (first < 0x80) {
    ++text;
    return first;
  }
  const int length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (length == 0 || end - text < length) {
    ++text;
    return 0xFFFD;
  }
  uint32_t code_point = first & (0x7F >> length);
  for (int i = 1; i < length; ++i) {
    if ((bytes[i] & 0xC0) != 0x80) {
      ++text;
      return 0xFFFD;
    }
    code_point = code_point << 6 | (bytes[i] & 0x3F);
  }
  const bool valid = length == 2 || (length == 3 && code_point >= 0x800 && code_point - 0xD800 >= 0x800) ||
                     (length == 4 && code_point >= 0x10000 && code_point < 0x110000);
  text += valid ? length : 1;
  return valid ? code_point : 0xFFFD;
}

// Writes at most 4 bytes and returns how many.
inline size_t encode_utf8(uint32_t code_point, char* out) {
  if (code_point < 0x80) {
    out[0] = char(code_point);
    return 1;
  }
  if (code_point < 0x800) {
    out[0] = char(0xC0 | code_point >> 6);
    out[1] = char(0x80 | (code_point & 0x3F));
    return 2;
  }
  if (code_point < 0x10000) {
    out[0] = char(0xE0 | code_point >> 12);
    out[1] = char(0x80 | (code_point >> 6 & 0x3F));
    out[2] = char(0x80 | (code_point & 0x3F));
    return 3;
  }
  out[0] = char(0xF0 | code_point >> 18);
  out[1] = char(0x80 | (code_point >> 12 & 0x3F));
  out[2] = char(0x80 | (code_point >> 6 & 0x3F));
  out[3] = char(0x80 | (code_point & 0x3F));
  return 4;
}

inline size_t count_characters(const char* text, size_t size) {
  size_t count = 0;
  for (size_t i = 0; i < size; ++i) count += (text[i] & 0xC0) != 0x80;
  return count;
}

}  // namespace dendritic_bert::engine
