// A column of texts as Arrow has them: the bytes of all texts one behind another, and where each of them ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace dendritic_bert::files {

class TextColumn {
 public:
  // The bytes that 32-bit offsets can count.
  static constexpr size_t most_bytes = size_t(std::numeric_limits<int32_t>::max());

  size_t size() const { return offsets_.size() - 1; }
  size_t null_count() const { return null_count_; }
  const std::string& bytes() const { return bytes_; }
  const std::vector<int32_t>& offsets() const { return offsets_; }
  // A bit for each text, 0 for null, the lowest bit of a byte first; nullptr if there is no null.
  const uint8_t* validity() const { return null_count_ ? validity_.data() : nullptr; }

  // Where the bytes of the next text are appended, before end_text().
  std::string& open_text() { return bytes_; }

  void end_text() {
    if (bytes_.size() > most_bytes) throw std::length_error("a column of texts has more than 2 GiB");
    if (null_count_) set_validity(size(), true);
    offsets_.push_back(int32_t(bytes_.size()));
  }

  void append(std::string_view text) {
    bytes_.append(text);
    end_text();
  }

  void append_null() {
    if (!null_count_++) validity_.assign(size() / 8 + 1, 0xFF);
    set_validity(size(), false);
    offsets_.push_back(int32_t(bytes_.size()));
  }

 private:
  void set_validity(size_t index, bool is_valid) {
    if (index / 8 >= validity_.size()) validity_.push_back(0);
    const auto bit = uint8_t(1U << (index % 8));
    validity_[index / 8] = uint8_t(is_valid ? validity_[index / 8] | bit : validity_[index / 8] & ~bit);
  }

  std::string bytes_;
  std::vector<int32_t> offsets_ = {0};
  std::vector<uint8_t> validity_;
  size_t null_count_ = 0;
};

}  // namespace dendritic_bert::files
