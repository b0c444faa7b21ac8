#include "row_formatter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "bytes.h"

namespace dendritic_bert::files {
namespace {

constexpr size_t most_copied_at_once = 4096;  // of a text, so that little room is asked for
constexpr size_t part_bytes = size_t(1) << 20;

// Where the lines go.
struct Lines {
  GrowingBytes& bytes;
  const TakePart& take;

  void append(std::string_view text) { bytes.append(text); }

  void end_part() {
    if (!take || bytes.view().size() < part_bytes) return;
    take(bytes.view());
    bytes.clear();
  }
};

// How many bytes of a text are copied at once: whole characters.
size_t copied_at_once(std::string_view text) {
  size_t size = std::min(text.size(), most_copied_at_once);
  while (size < text.size() && size > most_copied_at_once - 4 && (text[size] & 0xC0) == 0x80) --size;
  return size;
}

char* write_json_escape(char byte, char* out) {
  *out++ = '\\';
  switch (byte) {
    case '"':
    case '\\': *out++ = byte; return out;
    case '\b': *out++ = 'b'; return out;
    case '\f': *out++ = 'f'; return out;
    case '\n': *out++ = 'n'; return out;
    case '\r': *out++ = 'r'; return out;
    case '\t': *out++ = 't'; return out;
    default:
      std::memcpy(out, "u00", 3);
      out[3] = char('0' + (byte >> 4));
      out[4] = "0123456789abcdef"[byte & 15];
      return out + 5;
  }
}

// Writes up to 6 bytes for each of `text`.
char* write_json(std::string_view text, char* out) {
  const char *place = text.data(), *end = place + text.size();
  bool is_ascii = true;
  while (true) {
    const char* special = find_json_escape(place, end, is_ascii);
    std::memcpy(out, place, size_t(special - place));
    out += special - place;
    if (special == end) return out;
    out = write_json_escape(*special, out);
    place = special + 1;
  }
}

// Writes up to 2 bytes for each of `text`.
char* write_with_double_quotes(std::string_view text, char* out) {
  while (true) {
    const size_t size = std::min(text.find('"'), text.size());
    std::memcpy(out, text.data(), size);
    out += size;
    if (size == text.size()) return out;
    *out++ = '"';
    *out++ = '"';
    text.remove_prefix(size + 1);
  }
}

char* write_on_one_line(std::string_view text, char* out) {
  return std::transform(text.begin(), text.end(), out,
                        [](char byte) { return byte == '\t' || byte == '\r' || byte == '\n' ? ' ' : byte; });
}

char* write_as_it_is(std::string_view text, char* out) { return std::copy(text.begin(), text.end(), out); }

template <class Write>
void append_in_parts(std::string_view text, size_t most_growth, Write write, Lines& out) {
  while (!text.empty()) {
    const std::string_view part = text.substr(0, copied_at_once(text));
    out.bytes.end_at(write(part, out.bytes.make_room(part.size() * most_growth)));
    text.remove_prefix(part.size());
    out.end_part();
  }
}

void append_text(FieldKind kind, std::string_view text, Lines& out) {
  if (kind == FieldKind::csv)
    kind = text.empty() || text.find_first_of("\",\r\n") != std::string_view::npos ? FieldKind::csv_quoted
                                                                                   : FieldKind::plain;
  switch (kind) {
    case FieldKind::json:
      out.append("\"");
      append_in_parts(text, 6, write_json, out);
      out.append("\"");
      return;
    case FieldKind::csv_quoted:
      out.append("\"");
      append_in_parts(text, 2, write_with_double_quotes, out);
      out.append("\"");
      return;
    case FieldKind::tsv: append_in_parts(text, 1, write_on_one_line, out); return;
    default: append_in_parts(text, 1, write_as_it_is, out);
  }
}

char* write_integer(unsigned __int128 value, char* out) {
  char digits[40];
  char* first = digits + sizeof digits;
  do *--first = char('0' + int(value % 10));
  while (value /= 10);
  return std::copy(first, digits + sizeof digits, out);
}

// What "%.6f" makes of a float32: the decimal that is nearest to its exact value, of two the even one. A float32 has 24
// bits and 1e6 has 14 (and a power of two), so that a double holds their product exactly, and from 2^24 on every
// float32 is an integer. Writes up to 48 bytes.
char* write_score(float score, char* out) {
  if (std::signbit(score)) *out++ = '-';
  const double value = std::fabs(double(score));
  if (std::isinf(value)) {
    std::memcpy(out, "inf", 3);
    return out + 3;
  }
  if (value >= double(1 << 24)) {
    out = write_integer(static_cast<unsigned __int128>(value), out);
    std::memcpy(out, ".000000", 7);
    return out + 7;
  }
  const double scaled = value * 1e6;
  auto millionths = uint64_t(scaled);
  const double rest = scaled - double(millionths);
  if (rest > 0.5 || (rest == 0.5 && millionths % 2)) ++millionths;
  out = write_integer(millionths / 1000000, out);
  *out++ = '.';
  for (auto [left, divisor] = std::pair(uint32_t(millionths % 1000000), 100000U); divisor; divisor /= 10) {
    *out++ = char('0' + left / divisor);
    left %= divisor;
  }
  return out;
}

template <class T>
T number_at(const char* numbers, size_t row) {
  T number;
  std::memcpy(&number, numbers + row * sizeof(T), sizeof(T));
  return number;
}

void append_field(const Field& field, size_t row, std::string_view null, Lines& out) {
  if (field.kind == FieldKind::label) {
    const auto label = number_at<int32_t>(field.numbers, row);
    out.append(label < 0 || size_t(label) >= field.names.size() ? null : field.names[size_t(label)]);
  } else if (field.kind == FieldKind::score) {
    const auto score = number_at<float>(field.numbers, row);
    if (std::isnan(score)) out.append(null);
    else out.bytes.end_at(write_score(score, out.bytes.make_room(48)));
  } else if (field.texts.is_null(row)) {
    out.append(null);
  } else {
    append_text(field.kind, field.texts[row], out);
  }
}

}  // namespace

void format_rows(size_t num_rows, const std::vector<Field>& fields, std::string_view row_end, std::string_view null,
                 GrowingBytes& out, const TakePart& take) {
  if (!num_rows) return;  // an empty array of Arrow may have no offsets
  // What the rows take if nothing must be escaped, so that there is one copy here.
  size_t size = num_rows * row_end.size() + most_copied_at_once * 6;
  for (const Field& field : fields) {
    size += num_rows * (field.before.size() + 16);
    if (field.kind < FieldKind::label) size += field.texts.num_bytes(num_rows);
  }
  out.make_room(take ? std::min(size, part_bytes + most_copied_at_once * 6) : size);
  Lines lines = {out, take};
  for (size_t row = 0; row < num_rows; ++row) {
    for (const Field& field : fields) {
      lines.append(field.before);
      append_field(field, row, null, lines);
    }
    lines.append(row_end);
    lines.end_part();
  }
}

}  // namespace dendritic_bert::files
