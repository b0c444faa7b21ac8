// Columns to lines of JSON, CSV or TSV.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "growing_bytes.h"

namespace dendritic_bert::files {

// Texts that lie elsewhere, in Arrow's layout: offsets of 32 or of 64 bits, of which the other is nullptr; a bit for
// each text in `validity`, or nullptr; and the place of the first text in both.
struct TextView {
  const char* bytes;
  const int32_t* offsets;
  const int64_t* long_offsets;
  const uint8_t* validity;
  size_t first;

  bool is_null(size_t row) const {
    const size_t place = first + row;
    return validity && !(validity[place / 8] >> (place % 8) & 1);
  }

  // The bytes of the first `num_rows` texts.
  size_t num_bytes(size_t num_rows) const {
    return size_t(offsets ? offsets[first + num_rows] - offsets[first]
                          : long_offsets[first + num_rows] - long_offsets[first]);
  }

  std::string_view operator[](size_t row) const {
    const size_t place = first + row;
    const auto text = [&](auto* ends) {
      return std::string_view(bytes + ends[place], size_t(ends[place + 1] - ends[place]));
    };
    return offsets ? text(offsets) : text(long_offsets);
  }
};

// plain: as it is. json: a string. csv_quoted: always within quotes. csv: within quotes if it must be, or if it is
// empty. tsv: a tab or line end becomes a space. label: one of `names` by its number, null for -1. score: a float32
// with six decimals, null for NaN.
enum class FieldKind { plain, json, csv_quoted, csv, tsv, label, score };

struct Field {
  std::string_view before;  // what stands between it and the field to its left
  FieldKind kind;
  TextView texts;                       // of the first five kinds
  std::vector<std::string_view> names;  // of labels
  const char* numbers;                  // the int32 of labels, or the float32 of scores, which need not be aligned
};

// Takes a part of the lines, which ends where a character does.
using TakePart = std::function<void(std::string_view)>;

// Appends the lines of `num_rows` rows. With `take`, it is given them in parts of about 1 MiB, and `out` has the last.
void format_rows(size_t num_rows, const std::vector<Field>& fields, std::string_view row_end, std::string_view null,
                 GrowingBytes& out, const TakePart& take = nullptr);

}  // namespace dendritic_bert::files
