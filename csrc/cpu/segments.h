// Segments: the valid tokens of a batch, sorted by id.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "arguments.h"
#include "valid_tokens.h"

namespace dendritic_bert {

struct Segments {
  std::vector<int32_t> tokens;       // of segment 0, then of segment 1, ..., each in the order of the batch
  std::vector<int64_t> starts, ids;  // segment s is tokens [starts[s], starts[s + 1]), all of them of ids[s]
};

// A stable radix sort in passes of at most 11 bits. It takes as few passes as that allows and divides the bits among
// them: a pass of 8 bits writes to 256 cache lines at a time, which stay in L1.
inline Segments sort_into_segments(const Tokens& tokens) {
  struct Entry {
    int32_t id, token;
  };
  std::vector<Entry> entries(static_cast<size_t>(tokens.total)), other;
  size_t num_valid = 0;
  for (int64_t token = 0; token < tokens.total; ++token) {
    entries[num_valid] = {int32_t(tokens.ids[token]), int32_t(token)};
    num_valid += is_valid(tokens, token);
  }
  entries.resize(num_valid);
  other.resize(num_valid);
  constexpr int max_bits = 11;
  int id_bits = 0;
  while ((tokens.vocab_size - 1) >> id_bits > 0) ++id_bits;
  const int passes = std::max(1, (id_bits + max_bits - 1) / max_bits), bits = (id_bits + passes - 1) / passes;
  const uint32_t buckets = uint32_t(1) << bits;
  for (int shift = 0; shift < id_bits; shift += bits) {
    uint32_t start[(1 << max_bits) + 1] = {};
    for (const Entry& entry : entries) ++start[((uint32_t(entry.id) >> shift) & (buckets - 1)) + 1];
    for (uint32_t b = 0; b < buckets; ++b) start[b + 1] += start[b];
    for (const Entry& entry : entries) other[start[(uint32_t(entry.id) >> shift) & (buckets - 1)]++] = entry;
    entries.swap(other);
  }

  Segments segments;
  segments.tokens.resize(num_valid);
  for (size_t i = 0; i < num_valid; ++i) {
    if (i == 0 || entries[i].id != entries[i - 1].id) {
      segments.ids.push_back(entries[i].id);
      segments.starts.push_back(int64_t(i));
    }
    segments.tokens[i] = entries[i].token;
  }
  segments.starts.push_back(int64_t(num_valid));
  return segments;
}

}  // namespace dendritic_bert
