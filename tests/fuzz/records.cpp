// Bytes of any kind as lines, CSV, TSV and JSON Lines, to columns and from there to lines of every format.
#include <string>
#include <vector>

#include "../../csrc/files/bytes.h"
#include "../../csrc/files/record_scanner.h"
#include "../../csrc/files/row_formatter.h"
#include "input.h"

namespace dendritic_bert::files {
namespace {

using fuzz::check;

ScannerSettings settings_of(unsigned choice) {
  switch (choice % 4) {
    case 0: return {Format::text, ',', 1, {}, {}, 1, 1, 100};
    case 1: return {Format::csv, choice & 8 ? ';' : ',', 2, {1, 0, 1}, {}, 3, 3, 100};
    case 2: return {Format::tsv, '\t', 2, {1, 1}, {}, 2, 2, 100};
    default: return {Format::jsonl, ',', 0, {}, {"text", "b", "a"}, choice & 8 ? 1U : 2U, 3, 100};
  }
}

// The columns are as Arrow wants them, and of the texts that are read whole each is UTF-8.
void check_columns(RecordScanner& records, size_t most_bytes) {
  for (const TextColumn& column : records.columns()) {
    check(column.size() == records.size() && column.offsets().front() == 0);
    check(size_t(column.offsets().back()) == column.bytes().size() && column.bytes().size() <= most_bytes);
    for (size_t i = 0; i < column.size(); ++i) {
      const int32_t begin = column.offsets()[i], end = column.offsets()[i + 1];
      check(begin <= end);
      check(is_utf8(std::string_view(column.bytes()).substr(size_t(begin), size_t(end - begin))));
    }
  }
  for (size_t i = 1; i < records.size(); ++i) check(records.line_numbers()[i] > records.line_numbers()[i - 1]);
}

std::string formatted(RecordScanner& records, FieldKind kind, bool in_parts) {
  std::vector<Field> fields;
  for (const TextColumn& column : records.columns())
    fields.push_back(
        {"|", kind, {column.bytes().data(), column.offsets().data(), nullptr, column.validity(), 0}, {}, nullptr});
  std::string lines;
  GrowingBytes out;
  const TakePart take = [&](std::string_view part) { lines += part; };
  format_rows(records.size(), fields, "\n", "null", out, in_parts ? take : nullptr);
  return lines.append(out.view());
}

}  // namespace
}  // namespace dendritic_bert::files

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dendritic_bert::files;
  dendritic_bert::fuzz::Input input(data, size);
  const unsigned choice = input.take<uint8_t>();
  const size_t most_records = input.take<uint8_t>(), most_bytes = input.take<uint16_t>();
  const std::string_view rest(reinterpret_cast<const char*>(data) + (size - input.left()), input.left());
  const dendritic_bert::fuzz::Copy<char> bytes(rest.data(), rest.size());
  const std::string_view block(bytes.data.get(), bytes.size);
  RecordScanner records(settings_of(choice));
  int64_t lines = 0;
  for (size_t place = 0; place < block.size();) {
    const Progress progress = records.scan(block, place, lines, records.size() + most_records, most_bytes);
    check(progress.end >= place && progress.end <= block.size() && progress.lines >= 0);
    lines += progress.lines;
    place = progress.end;
    if (progress.stop == Stop::more) break;
    if (progress.stop == Stop::odd) {  // as Python, which reads to the end of a line
      const size_t end = block.find('\n', place);
      if (end == std::string_view::npos) break;
      place = end + 1;
      for (TextColumn& column : records.columns()) column.append_null();
      records.end_record(++lines);
    } else if (progress.end == place && (most_records == 0 || most_bytes == 0)) {
      break;
    }
  }
  check_columns(records, 4 * size + 16 * records.size());
  for (const FieldKind kind :
       {FieldKind::plain, FieldKind::json, FieldKind::csv_quoted, FieldKind::csv, FieldKind::tsv})
    check(formatted(records, kind, false) == formatted(records, kind, true));
  return 0;
}
