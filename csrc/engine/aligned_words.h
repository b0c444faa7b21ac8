// Words that know from which characters of the text they come, as the offsets of Hugging Face's tokenizers say it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "words.h"

namespace dendritic_bert::engine {

// Every code point of a word comes from one character. NFD takes the characters in their order, and the first part of
// each decomposition stands for the next of them, also where it sorts marks: a mark that moves has the place of the one
// that stood there before, as in the library.
class AlignedWords : public Words {
 public:
  static constexpr bool knows_characters = true;

  // Forgets all words; the next character that is read is number `first` of the text.
  void start(size_t first) {
    clear();
    characters_.clear();
    entered_.clear();
    num_left_ = 0;
    next_ = uint32_t(first);
  }

  size_t num_read() const { return next_; }
  void read_character() { ++next_; }
  void enter_nfd() { entered_.push_back(next_ - 1); }
  void leave_nfd(bool is_first_part) {
    if (is_first_part) from_ = entered_[num_left_++];
  }

  void append_character(uint32_t code_point) {
    Words::append_character(code_point);
    characters_.resize(num_bytes(), from_);
  }
  void append_alone(uint32_t code_point) {
    Words::append_alone(code_point);
    characters_.resize(num_bytes(), from_);
  }

  // The number of the character from which a byte of the words comes.
  uint32_t character_of(size_t byte) const { return characters_[byte]; }

 private:
  std::vector<uint32_t> characters_;  // of each byte
  std::vector<uint32_t> entered_;     // the characters that have gone to NFD, of which num_left_ have come out
  size_t num_left_ = 0;
  uint32_t next_ = 0, from_ = 0;  // the next character to be read, and the one from which parts now come
};

}  // namespace dendritic_bert::engine
