#include "json_object.h"

#include <cstdint>
#include <cstring>

#include "bytes.h"

namespace dendritic_bert::files {
namespace {

constexpr int most_nested = 64;
constexpr size_t most_digits = 4000;  // Python refuses an integer of more than 4,300

// A code point or half of one from the four digits behind \u; -1 if they are none.
int hex_value(const char* digits, const char* end) {
  if (end - digits < 4) return -1;
  int value = 0;
  for (int i = 0; i < 4; ++i) {
    const char digit = digits[i];
    const int nibble = digit >= '0' && digit <= '9'   ? digit - '0'
                       : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                       : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                                      : -1;
    if (nibble < 0) return -1;
    value = value * 16 + nibble;
  }
  return value;
}

bool is_high_surrogate(int unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool is_low_surrogate(int unit) { return unit >= 0xDC00 && unit < 0xE000; }

// A cursor in a line. Each function moves it behind what it reads, and gives false for what is not plain JSON.
class Cursor {
 public:
  explicit Cursor(std::string_view line) : place_(line.data()), end_(place_ + line.size()) {}

  const char* place() const { return place_; }
  bool is_ascii() const { return is_ascii_; }
  bool is_at_end() const { return place_ == end_; }

  bool skip(char wanted) {
    if (place_ == end_ || *place_ != wanted) return false;
    ++place_;
    return true;
  }

  void skip_space() {
    while (place_ != end_ && (*place_ == ' ' || *place_ == '\t' || *place_ == '\n' || *place_ == '\r')) ++place_;
  }

  // What stands between the quotes of a string.
  bool read_string(std::string_view& inside, bool& has_escape) {
    if (!skip('"')) return false;
    const char* start = place_;
    has_escape = false;
    while (true) {
      place_ = find_json_escape(place_, end_, is_ascii_);
      if (place_ == end_) return false;
      if (*place_ == '"') break;
      if (*place_ != '\\' || !skip_escape()) return false;
      has_escape = true;
    }
    inside = {start, size_t(place_ - start)};
    ++place_;
    return true;
  }

  bool read_value(int nested) {
    if (place_ == end_) return false;
    std::string_view inside;
    bool has_escape;
    switch (*place_) {
      case '"': return read_string(inside, has_escape);
      case '{': return read_nested('}', true, nested);
      case '[': return read_nested(']', false, nested);
      case 't': return skip_word("true");
      case 'f': return skip_word("false");
      case 'n': return skip_word("null");
      case 'N': return skip_word("NaN");
      case 'I': return skip_word("Infinity");
      default: return read_number();
    }
  }

 private:
  bool skip_word(std::string_view word) {
    if (size_t(end_ - place_) < word.size() || std::memcmp(place_, word.data(), word.size())) return false;
    place_ += word.size();
    return true;
  }

  bool skip_escape() {
    if (++place_ == end_) return false;
    if (*place_ != 'u') return *place_ && std::strchr("\"\\/bfnrt", *place_) && (++place_, true);
    const int unit = hex_value(++place_, end_);
    if (unit < 0 || is_low_surrogate(unit)) return false;
    place_ += 4;
    if (!is_high_surrogate(unit)) return true;
    if (!skip('\\') || !skip('u') || !is_low_surrogate(hex_value(place_, end_))) return false;
    place_ += 4;
    return true;
  }

  size_t skip_digits() {
    const char* start = place_;
    while (place_ != end_ && *place_ >= '0' && *place_ <= '9') ++place_;
    return size_t(place_ - start);
  }

  bool read_number() {
    const char* start = place_;
    skip('-');
    if (place_ != end_ && *place_ == 'I') return skip_word("Infinity");
    if (!skip('0') && !skip_digits()) return false;
    if (skip('.') && !skip_digits()) return false;
    if (place_ != end_ && (*place_ == 'e' || *place_ == 'E')) {
      ++place_;
      if (!skip('-')) skip('+');
      if (!skip_digits()) return false;
    }
    return size_t(place_ - start) <= most_digits;
  }

  bool read_nested(char last, bool is_object, int nested) {
    if (nested == most_nested) return false;
    ++place_;
    skip_space();
    if (skip(last)) return true;
    while (true) {
      if (is_object) {
        std::string_view key;
        bool has_escape;
        if (!read_string(key, has_escape)) return false;
        skip_space();
        if (!skip(':')) return false;
        skip_space();
      }
      if (!read_value(nested + 1)) return false;
      skip_space();
      if (skip(last)) return true;
      if (!skip(',')) return false;
      skip_space();
    }
  }

  const char* place_;
  const char* end_;
  bool is_ascii_ = true;
};

void append_code_point(uint32_t point, std::string& out) {
  if (point < 0x80) {
    out.push_back(char(point));
  } else if (point < 0x800) {
    out.push_back(char(0xC0 | point >> 6));
    out.push_back(char(0x80 | (point & 0x3F)));
  } else if (point < 0x10000) {
    out.push_back(char(0xE0 | point >> 12));
    out.push_back(char(0x80 | (point >> 6 & 0x3F)));
    out.push_back(char(0x80 | (point & 0x3F)));
  } else {
    out.push_back(char(0xF0 | point >> 18));
    out.push_back(char(0x80 | (point >> 12 & 0x3F)));
    out.push_back(char(0x80 | (point >> 6 & 0x3F)));
    out.push_back(char(0x80 | (point & 0x3F)));
  }
}

// Reads the value of the key of cells[index], which is missing so far. False if it is not what the column must hold.
bool read_cell(Cursor& cursor, bool is_text, Cell& cell) {
  if (cell.text.data()) return false;  // the key stands there twice
  if (is_text) {
    bool has_escape;
    if (!cursor.read_string(cell.text, has_escape)) return false;
    cell.escapes = has_escape ? Escapes::json : Escapes::none;
    return true;
  }
  const char* start = cursor.place();
  if (!cursor.read_value(1)) return false;
  cell.text = {start, size_t(cursor.place() - start)};
  return true;
}

}  // namespace

bool read_json_object(std::string_view line, const std::vector<std::string>& keys, size_t num_texts,
                      std::vector<Cell>& cells) {
  cells.assign(keys.size(), {{}, Escapes::none});
  Cursor cursor(line);
  cursor.skip_space();
  if (!cursor.skip('{')) return false;
  cursor.skip_space();
  for (bool is_first = true; !cursor.skip('}'); is_first = false) {
    if (!is_first) {
      if (!cursor.skip(',')) return false;
      cursor.skip_space();
    }
    std::string_view key;
    bool has_escape;
    if (!cursor.read_string(key, has_escape) || has_escape) return false;
    cursor.skip_space();
    if (!cursor.skip(':')) return false;
    cursor.skip_space();
    size_t column = 0;
    while (column < keys.size() && keys[column] != key) ++column;
    if (column < keys.size() ? !read_cell(cursor, column < num_texts, cells[column]) : !cursor.read_value(1))
      return false;
    cursor.skip_space();
  }
  cursor.skip_space();
  if (!cursor.is_at_end() || (!cursor.is_ascii() && !is_utf8(line))) return false;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (cells[i].text.data()) continue;
    if (i < num_texts) return false;
    cells[i].text = "null";
  }
  return true;
}

void append_unescaped_json(std::string_view string, std::string& out) {
  const char *place = string.data(), *end = place + string.size();
  // A long string may have 64 MiB, of which there is to be one copy.
  if (string.size() > 1 << 16) out.reserve(out.size() + string.size());
  while (place != end) {
    const void* found = std::memchr(place, '\\', size_t(end - place));
    const char* backslash = found ? static_cast<const char*>(found) : end;
    out.append(place, size_t(backslash - place));
    if (backslash == end) return;
    place = backslash + 2;
    switch (backslash[1]) {
      case 'b': out.push_back('\b'); break;
      case 'f': out.push_back('\f'); break;
      case 'n': out.push_back('\n'); break;
      case 'r': out.push_back('\r'); break;
      case 't': out.push_back('\t'); break;
      case 'u': {
        auto point = uint32_t(hex_value(place, end));
        place += 4;
        if (is_high_surrogate(int(point))) {  // a low one follows
          point = 0x10000 + ((point - 0xD800) << 10) + (uint32_t(hex_value(place + 2, end)) - 0xDC00);
          place += 6;
        }
        append_code_point(point, out);
        break;
      }
      default: out.push_back(backslash[1]);  // a quote, a backslash or a slash
    }
  }
}

}  // namespace dendritic_bert::files
