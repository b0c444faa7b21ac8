// ASCII text, 64 bytes at a time: lower case, and the first and last byte of every word, as bits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "words.h"

namespace dendritic_bert::engine {

// A bit for each byte of a block. Each byte is one of these, or a space, a tab or the end of a line. The lowest bit of
// `other` is the first byte that is not ASCII or a control character but for a tab and the end of a line; what is said
// of those behind it means nothing.
struct AsciiBlock {
  uint64_t alphanumeric, punctuation, other;
};

#ifdef __SSE2__
// Reads 64 bytes, writes them in lower case or as they are, and says what they are.
inline AsciiBlock classify_block(const char* text, bool lowercase, char* out) {
  const auto set = [](int value) { return _mm_set1_epi8(char(value)); };
  // Whether low <= byte < low + count, by a signed comparison of bytes moved to the low end of their range.
  const auto in_range = [&](__m128i bytes, int low, int count) {
    return _mm_cmplt_epi8(_mm_add_epi8(bytes, set(0x80 - low)), set(count - 0x80));
  };
  const auto bits_of = [](__m128i lanes) { return uint64_t(uint32_t(_mm_movemask_epi8(lanes))); };
  const __m128i case_bit = set(lowercase ? 0x20 : 0);
  AsciiBlock block = {};
  uint64_t spaces = 0, printable = 0;
  for (int i = 0; i < 64; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text + i));
    const __m128i letter = in_range(_mm_or_si128(bytes, set(0x20)), 'a', 26);
    const __m128i alphanumeric = _mm_or_si128(letter, in_range(bytes, '0', 10));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm_or_si128(bytes, _mm_and_si128(letter, case_bit)));
    block.alphanumeric |= bits_of(alphanumeric) << i;
    spaces |= bits_of(_mm_cmpeq_epi8(bytes, set(' '))) << i;
    printable |= bits_of(in_range(bytes, ' ', 0x7F - ' ')) << i;
  }
  block.punctuation = printable & ~(block.alphanumeric | spaces);
  block.other = ~printable;
  // Which of these bytes are white space is asked one by one, since most blocks have none of them.
  while (block.other) {
    const char byte = text[__builtin_ctzll(block.other)];
    if (byte != '\t' && byte != '\n' && byte != '\r') break;
    block.other &= block.other - 1;
  }
  return block;
}
#else
inline AsciiBlock classify_block(const char* text, bool lowercase, char* out) {
  AsciiBlock block = {};
  for (int i = 0; i < 64; ++i) {
    const auto byte = uint8_t(text[i]);
    const bool letter = uint8_t((byte | 0x20) - 'a') < 26, printable = byte > 0x20 && byte < 0x7F;
    const bool alphanumeric = letter || uint8_t(byte - '0') < 10;
    const bool space = byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
    out[i] = char(letter && lowercase ? byte | 0x20 : byte);
    block.alphanumeric |= uint64_t(alphanumeric) << i;
    block.punctuation |= uint64_t(printable && !alphanumeric) << i;
    block.other |= uint64_t(!printable && !space) << i;
  }
  return block;
}
#endif

inline size_t count_bits(uint64_t bits) {  // x86-64 as such has no instruction for it
  bits -= bits >> 1 & 0x5555555555555555;
  bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
  bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0F;
  return size_t(bits * 0x0101010101010101 >> 56);
}

// Writes base + i for every bit i that is set, of which there are `count`, and up to 7 numbers more: a loop that ended
// after the last bit would be mispredicted in every block.
inline void write_positions(uint64_t bits, size_t count, uint32_t base, uint32_t* out) {
  for (size_t done = 0; done < count; done += 8)
    for (size_t i = done; i < done + 8; ++i) {
      out[i] = base + uint32_t(__builtin_ctzll(bits | uint64_t(1) << 63));
      bits &= bits - 1;
    }
}

// Appends text up to the first byte that is `other`, and returns how many bytes that is. There must be room for `size`
// bytes. A word at the end stays open, because what follows may belong to it.
inline size_t append_ascii(Words& words, const char* text, size_t size, bool lowercase) {
  uint32_t* starts = words.starts_.data() + words.num_words_;
  uint32_t* ends = words.ends_.data() + words.num_words_;
  starts += words.in_word_;
  uint64_t after_word = words.in_word_, after_punctuation = 0;  // whether the byte before the block was one
  size_t done = 0;
  while (done < size) {
    char padded[block_bytes];
    const char* source = text + done;
    size_t length = std::min(size - done, block_bytes);
    if (length < block_bytes) {
      std::memset(padded, ' ', block_bytes);
      std::memcpy(padded, source, length);
      source = padded;
    }
    AsciiBlock block = classify_block(source, lowercase, words.bytes_.data() + words.num_bytes_);
    const bool stops = block.other != 0;
    if (stops) length = size_t(__builtin_ctzll(block.other));
    if (length == 0) break;
    const uint64_t counted = ~uint64_t(0) >> (64 - length);
    block.alphanumeric &= counted;
    block.punctuation &= counted;
    const uint64_t behind_word = block.alphanumeric << 1 | after_word;
    const uint64_t behind_punctuation = block.punctuation << 1 | after_punctuation;
    const auto base = uint32_t(words.num_bytes_);
    const uint64_t first_bytes = block.punctuation | (block.alphanumeric & ~behind_word);
    const uint64_t behind = ((behind_word & ~block.alphanumeric) | behind_punctuation) & counted;
    const size_t num_starts = count_bits(first_bytes), num_ends = count_bits(behind);
    write_positions(first_bytes, num_starts, base, starts);
    write_positions(behind, num_ends, base, ends);
    starts += num_starts;
    ends += num_ends;
    after_word = block.alphanumeric >> (length - 1) & 1;
    after_punctuation = block.punctuation >> (length - 1) & 1;
    words.num_bytes_ += length;
    done += length;
    if (stops) break;
  }
  if (after_punctuation) *ends++ = uint32_t(words.num_bytes_);
  words.num_words_ = size_t(ends - words.ends_.data());
  words.in_word_ = after_word;
  return done;
}

}  // namespace dendritic_bert::engine
