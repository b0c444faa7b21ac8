// One line of JSON Lines, read for the values of some keys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "record_scanner.h"

namespace dendritic_bert::files {

// Whether `line` is an object that Python's json reads, and that is plain: none of `keys` stands in it twice, no key
// has an escape, the first `num_texts` keys have strings, no escape is a lone surrogate, no number has more than 4,000
// digits, and nothing is nested more than 64 deep. Sets a cell for each key: the string between its quotes for the
// first `num_texts`, the JSON of the value for others, `null` if the key is missing.
bool read_json_object(std::string_view line, const std::vector<std::string>& keys, size_t num_texts,
                      std::vector<Cell>& cells);

// Appends what the inside of a string of JSON stands for. The string is one that `read_json_object` has accepted.
void append_unescaped_json(std::string_view string, std::string& out);

}  // namespace dendritic_bert::files
