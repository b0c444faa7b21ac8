// The words that a text falls into: their bytes after normalisation, one behind another, and where each lies.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "unicode.h"

namespace dendritic_bert::engine {

// Bytes that may be written or read behind the last one that counts: a block of ASCII is stored whole, and a word is
// read 16 bytes at a time.
constexpr size_t block_bytes = 64;

class Words {
 public:
  static constexpr bool knows_characters = false;  // from which its words come, as AlignedWords does
  static constexpr size_t most_idle_bytes = 1 << 17;

  const char* bytes() const { return bytes_.data(); }
  size_t num_bytes() const { return num_bytes_; }
  size_t size() const { return num_words_; }
  const uint32_t* starts() const { return starts_.data(); }
  const uint32_t* ends() const { return ends_.data(); }

  void clear() {
    num_bytes_ = num_words_ = 0;
    in_word_ = false;
  }

  // Gives back the memory of a long text.
  void shrink() {
    if (bytes_.size() > most_idle_bytes) *this = Words();
  }

  // Forgets the words that have ended, and of one that has not what comes behind `most_bytes`.
  void keep_open_word(size_t most_bytes) {
    const size_t start = in_word_ ? starts_[num_words_] : num_bytes_;
    num_bytes_ = std::min(num_bytes_ - start, most_bytes);
    std::copy_n(bytes_.begin() + int64_t(start), num_bytes_, bytes_.begin());
    num_words_ = 0;
    if (in_word_) starts_[0] = 0;
  }

  // Makes room for `size` more bytes, each of them a word at most.
  void reserve(size_t size) {
    const size_t needed = num_bytes_ + size + block_bytes;
    if (needed <= bytes_.size()) return;
    const size_t room = needed + needed / 2;
    starts_.resize(room);
    ends_.resize(room);
    bytes_.resize(room);  // the last, as its size says how much room there is, also after one of these has thrown
  }

  // A character of a word. There must be room for 4 bytes.
  void append_character(uint32_t code_point) {
    if (!in_word_) starts_[num_words_] = uint32_t(num_bytes_);
    in_word_ = true;
    num_bytes_ += encode_utf8(code_point, bytes_.data() + num_bytes_);
  }

  void end_word() {
    if (in_word_) ends_[num_words_++] = uint32_t(num_bytes_);
    in_word_ = false;
  }

  // A character that is a word by itself.
  void append_alone(uint32_t code_point) {
    end_word();
    append_character(code_point);
    end_word();
  }

  // What AlignedWords is told.
  void enter_nfd() {}
  void leave_nfd(bool) {}

  friend size_t append_ascii(Words&, const char*, size_t, bool);

 private:
  std::vector<char> bytes_;
  std::vector<uint32_t> starts_, ends_;
  size_t num_bytes_ = 0, num_words_ = 0;  // ends_[num_words_] is missing while in_word_
  bool in_word_ = false;
};

}  // namespace dendritic_bert::engine
