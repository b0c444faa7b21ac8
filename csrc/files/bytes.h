// Searches of text, 16 bytes at a time: what must be escaped, and what is not UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace dendritic_bert::files {

// The first byte of [text, end) that a string of JSON must escape, a quote, a backslash or a control character; `end`
// if there is none. Clears `is_ascii` if a byte before it is not ASCII.
inline const char* find_json_escape(const char* text, const char* end, bool& is_ascii) {
#ifdef __SSE2__
  for (; end - text >= 16; text += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text));
    const __m128i quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
    const __m128i backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
    const int found = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control));
    const int beyond_ascii = _mm_movemask_epi8(bytes);
    if (found) {
      const int place = __builtin_ctz(unsigned(found));
      is_ascii &= !(beyond_ascii & ((1 << place) - 1));
      return text + place;
    }
    is_ascii &= !beyond_ascii;
  }
#endif
  for (; text != end; ++text) {
    const auto byte = uint8_t(*text);
    if (byte == '"' || byte == '\\' || byte < 0x20) return text;
    is_ascii &= byte < 0x80;
  }
  return end;
}

// The first byte of [text, end) that is one of three; `end` if there is none.
inline const char* find_any(const char* text, const char* end, char first, char second, char third) {
#ifdef __SSE2__
  for (; end - text >= 16; text += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text));
    const int found = _mm_movemask_epi8(_mm_or_si128(
        _mm_cmpeq_epi8(bytes, _mm_set1_epi8(first)),
        _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(second)), _mm_cmpeq_epi8(bytes, _mm_set1_epi8(third)))));
    if (found) return text + __builtin_ctz(unsigned(found));
  }
#endif
  while (text != end && *text != first && *text != second && *text != third) ++text;
  return text;
}

// The first byte of [text, end) that is not ASCII, or one up to 15 bytes before it.
inline const char* skip_ascii(const char* text, const char* end) {
#ifdef __SSE2__
  while (end - text >= 16 && !_mm_movemask_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(text)))) text += 16;
#else
  for (uint64_t word; end - text >= 8; text += 8) {
    std::memcpy(&word, text, 8);
    if (word & 0x8080808080808080U) break;
  }
#endif
  return text;
}

// How many bytes the UTF-8 sequence at the start of [text, end) has, which is not empty; 0 if it is none (RFC 3629).
inline size_t utf8_sequence(const char* text, const char* end) {
  const auto byte = [&](size_t i) { return uint8_t(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t size = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (!size || size_t(end - text) < size) return 0;
  const uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < size; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  return size;
}

inline bool is_utf8(std::string_view text) {
  const char *place = text.data(), *end = place + text.size();
  while (true) {
    place = skip_ascii(place, end);
    if (place == end) return true;
    // Up to the next 16 bytes of ASCII, or the end.
    for (int i = 0; i < 16 && place != end; ++i) {
      const size_t size = utf8_sequence(place, end);
      if (!size) return false;
      place += size;
    }
  }
}

}  // namespace dendritic_bert::files
