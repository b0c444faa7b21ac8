// Bytes of lines, CSV, TSV or JSON Lines to columns of texts.
//
// The scanner reads the records that are plain, and stops at any other: one that is malformed, that is not UTF-8, or
// whose meaning takes more than a look, such as an object of JSON with a key twice. Python reads that record, so that
// messages and rare cases are said in one place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text_column.h"

namespace dendritic_bert::files {

enum class Format { text, csv, tsv, jsonl };

// full: as many records or bytes as were asked for. more: the bytes end within a record. odd: the next record is for
// Python to read.
enum class Stop { full, more, odd };

struct Progress {
  size_t end;     // of what was read
  int64_t lines;  // that end there
  Stop stop;
};

// What stands in a column of a record: its bytes as they are, with quotes doubled, or with the escapes of JSON.
enum class Escapes { none, csv, json };

struct Cell {
  std::string_view text;
  Escapes escapes;
};

// A column is a field of CSV or TSV, by its number among the `width` fields of a record; or the value of a key of JSON.
// The first `num_texts` of the keys must have strings, which are unescaped; of other values the JSON itself is given.
// A record of more than `most_record_bytes` is not plain.
struct ScannerSettings {
  Format format;
  char delimiter;
  size_t width;
  std::vector<size_t> fields;
  std::vector<std::string> keys;
  size_t num_texts;
  size_t num_columns;
  size_t most_record_bytes;
};

class RecordScanner {
 public:
  explicit RecordScanner(ScannerSettings settings);

  size_t size() const { return line_numbers_.size(); }

  // Appends the records of bytes[begin:], until there are `most_records` or about `most_bytes` were read.
  // `lines_before` are those before `begin`.
  Progress scan(std::string_view bytes, size_t begin, int64_t lines_before, size_t most_records, size_t most_bytes);

  // A record that was read elsewhere: its cells are appended to `columns()`, and its line here.
  std::vector<TextColumn>& columns() { return columns_; }
  void end_record(int64_t line) { line_numbers_.push_back(line); }

  // For each record the number of its last line.
  const std::vector<int64_t>& line_numbers() const { return line_numbers_; }

  void clear();

 private:
  enum class Kind { record, blank, more, odd };
  struct Found {
    Kind kind;
    size_t size;        // bytes
    int64_t lines = 1;  // that end in them
  };

  Found next(std::string_view bytes);
  Found next_line(std::string_view bytes) const;
  Found next_of_text(std::string_view bytes);
  Found next_of_tsv(std::string_view bytes);
  Found next_of_csv(std::string_view bytes);
  Found next_of_jsonl(std::string_view bytes);
  void append_cells();

  ScannerSettings settings_;
  std::vector<Cell> cells_;   // of the record that is read, one for each column
  std::vector<Cell> fields_;  // all of them, of CSV and TSV
  std::vector<TextColumn> columns_;
  std::vector<int64_t> line_numbers_;
};

}  // namespace dendritic_bert::files
