#include "record_scanner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "bytes.h"
#include "json_object.h"

namespace dendritic_bert::files {
namespace {

// So many bytes of CSV are read again, at most, when more of a record have come.
constexpr size_t most_bytes_reread = size_t(1) << 20;

std::string_view without_line_end(std::string_view line) {
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  return line;
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\n") == std::string_view::npos; }

void append_with_single_quotes(std::string_view field, std::string& out) {
  while (true) {
    const size_t quote = field.find('"');
    if (quote == std::string_view::npos) break;
    out.append(field.substr(0, quote + 1));
    field.remove_prefix(quote + 2);  // the next byte is a quote, too
  }
  out.append(field);
}

}  // namespace

RecordScanner::RecordScanner(ScannerSettings settings)
    : settings_(std::move(settings)), columns_(settings_.num_columns) {}

void RecordScanner::clear() {
  columns_ = std::vector<TextColumn>(settings_.num_columns);
  line_numbers_.clear();
}

Progress RecordScanner::scan(std::string_view bytes, size_t begin, int64_t lines_before, size_t most_records,
                             size_t most_bytes) {
  Progress progress = {begin, 0, Stop::full};
  while (size() < most_records && progress.end - begin < most_bytes) {
    const Found found = next(bytes.substr(progress.end));
    if (found.kind == Kind::more || found.kind == Kind::odd) {
      progress.stop = found.kind == Kind::more ? Stop::more : Stop::odd;
      break;
    }
    progress.end += found.size;
    progress.lines += found.lines;
    if (found.kind == Kind::record) {
      append_cells();
      end_record(lines_before + progress.lines);
    }
  }
  return progress;
}

void RecordScanner::append_cells() {
  for (size_t i = 0; i < columns_.size(); ++i) {
    std::string& out = columns_[i].open_text();
    switch (cells_[i].escapes) {
      case Escapes::none: out.append(cells_[i].text); break;
      case Escapes::csv: append_with_single_quotes(cells_[i].text, out); break;
      case Escapes::json: append_unescaped_json(cells_[i].text, out); break;
    }
    columns_[i].end_text();
  }
}

RecordScanner::Found RecordScanner::next(std::string_view bytes) {
  switch (settings_.format) {
    case Format::text: return next_of_text(bytes);
    case Format::csv: return next_of_csv(bytes);
    case Format::tsv: return next_of_tsv(bytes);
    default: return next_of_jsonl(bytes);
  }
}

// A line with its end, that is a record if nothing is wrong with it.
RecordScanner::Found RecordScanner::next_line(std::string_view bytes) const {
  const void* end = bytes.empty() ? nullptr : std::memchr(bytes.data(), '\n', bytes.size());
  const size_t size = end ? size_t(static_cast<const char*>(end) - bytes.data()) + 1 : bytes.size();
  if (size > settings_.most_record_bytes) return {Kind::odd, 0};
  return {end ? Kind::record : Kind::more, size};
}

RecordScanner::Found RecordScanner::next_of_text(std::string_view bytes) {
  const Found line = next_line(bytes);
  if (line.kind != Kind::record) return line;
  const std::string_view text = without_line_end(bytes.substr(0, line.size));
  if (!is_utf8(text)) return {Kind::odd, 0};
  cells_.assign(columns_.size(), {text, Escapes::none});
  return line;
}

RecordScanner::Found RecordScanner::next_of_tsv(std::string_view bytes) {
  Found line = next_line(bytes);
  if (line.kind != Kind::record) return line;
  std::string_view row = without_line_end(bytes.substr(0, line.size));
  if (row.empty()) return {Kind::blank, line.size};
  if (!is_utf8(row)) return {Kind::odd, 0};
  fields_.clear();
  for (size_t tab; (tab = row.find('\t')) != std::string_view::npos; row.remove_prefix(tab + 1))
    fields_.push_back({row.substr(0, tab), Escapes::none});
  fields_.push_back({row, Escapes::none});
  if (fields_.size() != settings_.width) return {Kind::odd, 0};
  cells_.clear();
  for (const size_t field : settings_.fields) cells_.push_back(fields_[field]);
  return line;
}

// A row of RFC 4180. One with a quote inside a field that does not begin with one, with a CR that no LF follows, or
// with a NUL, is left to Python's csv.
RecordScanner::Found RecordScanner::next_of_csv(std::string_view bytes) {
  const Found too_short = {
      bytes.size() > std::min(settings_.most_record_bytes, most_bytes_reread) ? Kind::odd : Kind::more, 0};
  const char *start = bytes.data(), *place = start;
  const char* end = start + std::min(bytes.size(), settings_.most_record_bytes);
  if (place == end) return too_short;
  fields_.clear();
  while (true) {
    Cell field = {{}, Escapes::none};
    if (place != end && *place == '"') {
      const char* inside = ++place;
      while (true) {
        const void* quote = place == end ? nullptr : std::memchr(place, '"', size_t(end - place));
        if (!quote) return too_short;
        place = static_cast<const char*>(quote) + 1;
        if (place == end) return too_short;
        if (*place != '"') break;
        field.escapes = Escapes::csv;
        ++place;
      }
      field.text = {inside, size_t(place - 1 - inside)};
    } else {
      const char* first = place;
      place = find_any(place, end, settings_.delimiter, '"', '\n');
      if (place == end) return too_short;
      if (*place == '"') return {Kind::odd, 0};
      field.text = {first, size_t(place - first)};
      if (*place == '\n' && !field.text.empty() && field.text.back() == '\r') {
        field.text.remove_suffix(1);
        --place;
      }
      if (!field.text.empty() && std::memchr(field.text.data(), '\r', field.text.size())) return {Kind::odd, 0};
    }
    fields_.push_back(field);
    if (place != end && *place == '\r') {
      if (++place == end) return too_short;
      if (*place != '\n') return {Kind::odd, 0};
    }
    if (place == end) return too_short;
    if (*place == '\n') break;
    if (*place != settings_.delimiter) return {Kind::odd, 0};
    ++place;
  }
  const std::string_view row = {start, size_t(place + 1 - start)};
  if (row == "\n" || row == "\r\n") return {Kind::blank, row.size()};
  if (fields_.size() != settings_.width || !is_utf8(row) || std::memchr(row.data(), 0, row.size()))
    return {Kind::odd, 0};
  cells_.clear();
  for (const size_t field : settings_.fields) cells_.push_back(fields_[field]);
  return {Kind::record, row.size(), std::count(row.begin(), row.end(), '\n')};
}

RecordScanner::Found RecordScanner::next_of_jsonl(std::string_view bytes) {
  const Found line = next_line(bytes);
  if (line.kind != Kind::record) return line;
  const std::string_view text = bytes.substr(0, line.size);
  if (is_blank(text)) return {Kind::blank, line.size};
  if (!read_json_object(text, settings_.keys, settings_.num_texts, cells_)) return {Kind::odd, 0};
  return line;
}

}  // namespace dendritic_bert::files
