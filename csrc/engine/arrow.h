// Arrow's C data interface (arrow.apache.org/docs/format/CDataInterface.html), as far as an array of strings needs it.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "../common/arrow_c_data.h"
#include "texts.h"
#include "tokenizer.h"

namespace dendritic_bert::engine {

// Whether offsets rise, and no text is longer than the tokenizer takes.
template <class Offset>
bool are_offsets(const Offset* offsets, size_t size) {
  bool are = offsets[0] >= 0;
  for (size_t i = 0; i < size; ++i) {
    const auto length = uint64_t(offsets[i + 1]) - uint64_t(offsets[i]);
    are &= offsets[i + 1] >= offsets[i] && length <= Tokenizer::most_text_bytes;
  }
  return are;
}

// The texts of an array of strings or of bytes, in place; or why not.
inline std::string read_arrow(const ArrowSchema& schema, const ArrowArray& array, Texts& texts) {
  const char kind = schema.format[0];
  if (schema.format[0] == 0 || schema.format[1] != 0 || (kind != 'u' && kind != 'U' && kind != 'z' && kind != 'Z'))
    return std::string("texts is an Arrow array of format ") + schema.format +
           ", expected string or large_string: cast it";
  if (array.length < 0 || array.offset < 0 || array.n_buffers != 3)
    return "texts is an Arrow array of " + std::to_string(array.length) + " strings from place " +
           std::to_string(array.offset) + " on in " + std::to_string(array.n_buffers) + " buffers, expected three";
  if (array.null_count != 0) {
    const auto* valid = static_cast<const uint8_t*>(array.buffers[0]);
    for (int64_t i = array.offset; valid && i < array.offset + array.length; ++i)
      if (!(valid[i / 8] >> i % 8 & 1))
        return "texts[" + std::to_string(i - array.offset) + "] is null: fill it or leave it out";
  }
  texts = Texts();
  texts.size = size_t(array.length);
  texts.bytes = static_cast<const char*>(array.buffers[2]);
  if (array.length == 0) return "";
  const auto read_offsets = [&](const auto*& offsets) -> std::string {
    offsets = static_cast<std::decay_t<decltype(offsets)>>(array.buffers[1]) + array.offset;
    if (!are_offsets(offsets, texts.size))
      return "texts is an Arrow array whose offsets fall, or that has a text of more than 1 GiB";
    texts.num_bytes = size_t(offsets[texts.size] - offsets[0]);
    return "";
  };
  return kind == 'u' || kind == 'z' ? read_offsets(texts.offsets) : read_offsets(texts.large_offsets);
}

}  // namespace dendritic_bert::engine
