// BertNormalizer and BertPreTokenizer of Hugging Face's tokenizers, in one pass: text to words.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned_words.h"
#include "ascii.h"
#include "unicode.h"
#include "words.h"

namespace dendritic_bert::engine {

// The settings of BertNormalizer; strip_accents is what its null stands for, too.
struct NormalizerSettings {
  bool clean_text, handle_chinese_chars, strip_accents, lowercase;
};

class Normalizer {
 public:
  explicit Normalizer(NormalizerSettings settings) : settings_(settings) {}

  // Forgets what waits for the rest of a text.
  void start(Words& words) {
    words.clear();
    marks_.clear();
  }

  // Appends the words of `size` bytes of UTF-8. Where more follows, the last word stays open.
  void split(const char* text, size_t size, bool more_follows, Words& words) {
    const char* end = text + size;
    while (text < end) {
      if (is_plain_ascii(*text)) {
        append_reordered(words);
        words.reserve(size_t(end - text));
        text += append_ascii(words, text, size_t(end - text), settings_.lowercase);
      }
      while (text < end && !is_plain_ascii(*text)) {
        words.reserve(most_bytes_of_a_character);
        append(decode_utf8(text, end), words);
      }
    }
    if (more_follows) return;
    append_reordered(words);
    words.end_word();
  }

  // The same words, and where they come from, one character after another. The first one is number `first` of its text.
  void split(const char* text, size_t size, size_t first, AlignedWords& words) {
    words.start(first);
    const char* end = text + size;
    while (text < end) {
      words.reserve(most_bytes_of_a_character);
      words.read_character();
      append(decode_utf8(text, end), words);
    }
    append_reordered(words);
    words.end_word();
  }

 private:
  // Of 4 parts that lower case makes 2 code points of 4 bytes each.
  static constexpr size_t most_bytes_of_a_character = 32;

  static bool is_plain_ascii(char byte) {
    return (byte >= ' ' && byte < 0x7F) || byte == '\t' || byte == '\n' || byte == '\r';
  }

  // The steps in BertNormalizer's order: clean_text, handle_chinese_chars, strip_accents, lowercase. `Out` is Words or
  // AlignedWords.
  template <class Out>
  void append(uint32_t code_point, Out& words) {
    const Record& record = find_record(code_point);
    if (settings_.clean_text && record.flags & (deleted | becomes_space)) {
      if (record.flags & deleted) return;
      append_reordered(words);
      return words.end_word();
    }
    const bool stands_alone = settings_.handle_chinese_chars && record.flags & chinese;
    if (stands_alone) {
      append_reordered(words);
      words.end_word();
    }
    words.enter_nfd();
    if (settings_.strip_accents) {
      append_decomposed(code_point, record, words);
    } else {
      words.leave_nfd(true);
      append_lower(code_point, record, words);
    }
    if (stands_alone) {
      append_reordered(words);
      words.end_word();
    }
  }

  template <class Out>
  void append_decomposed(uint32_t code_point, const Record& record, Out& words) {
    if (record.flags & hangul) {  // the arithmetic of the Unicode standard, section 3.12
      const uint32_t index = code_point - 0xAC00;
      append_part(0x1100 + index / 588, true, words);
      append_part(0x1161 + index % 588 / 28, false, words);
      if (index % 28) append_part(0x11A7 + index % 28, false, words);
    } else if (record.flags & decomposes) {
      const Decomposition* found =
          std::lower_bound(std::begin(decompositions), std::end(decompositions), code_point,
                           [](const Decomposition& entry, uint32_t key) { return entry.code_point < key; });
      for (const uint32_t& part : found->parts)
        if (part) append_part(part, &part == found->parts, words);
    } else {
      append_part(code_point, true, words);
    }
  }

  // Marks that follow one another come in the order of their combining classes, as NFD wants it.
  template <class Out>
  void append_part(uint32_t code_point, bool is_first, Out& words) {
    const Record& record = find_record(code_point);
    if (record.combining_rank) {
      // One that will be stripped need not be sorted, unless its place is to be known.
      if (Out::knows_characters || !(record.flags & nonspacing_mark))
        marks_.push_back({record.combining_rank, is_first, code_point});
      return;
    }
    append_reordered(words);
    append_stripped(code_point, record, is_first, words);
  }

  template <class Out>
  void append_reordered(Out& words) {
    if (marks_.empty()) return;
    std::stable_sort(marks_.begin(), marks_.end(), [](Mark a, Mark b) { return a.rank < b.rank; });
    for (Mark mark : marks_) {
      words.reserve(2 * most_bytes_of_a_character);  // what follows the marks needs room, too
      append_stripped(mark.code_point, find_record(mark.code_point), mark.is_first, words);
    }
    marks_.clear();
  }

  template <class Out>
  void append_stripped(uint32_t code_point, const Record& record, bool is_first, Out& words) {
    words.leave_nfd(is_first);
    if (!(record.flags & nonspacing_mark)) append_lower(code_point, record, words);
  }

  template <class Out>
  void append_lower(uint32_t code_point, const Record& record, Out& words) {
    if (!settings_.lowercase || (record.lower == 0 && record.extra_lower == 0))
      return append_classified(code_point, record, words);
    const uint32_t lower = code_point + uint32_t(record.lower);
    append_classified(lower, find_record(lower), words);
    const auto extra = uint32_t(record.extra_lower);
    if (extra) append_classified(extra, find_record(extra), words);
  }

  template <class Out>
  void append_classified(uint32_t code_point, const Record& record, Out& words) {
    if (record.flags & white_space) words.end_word();
    else if (record.flags & punctuation) words.append_alone(code_point);
    else words.append_character(code_point);
  }

  struct Mark {
    uint8_t rank;
    bool is_first;  // of the parts of its character
    uint32_t code_point;
  };

  NormalizerSettings settings_;
  std::vector<Mark> marks_;  // those that wait for the next starter
};

}  // namespace dendritic_bert::engine
