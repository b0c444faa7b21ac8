// The unmasked tokens of a batch in the order of their ids: a stable radix sort in as few passes of at most 11 bits as
// there must be, and then in as few bits: two passes of 8 bits write to 256 lines at a time, which stay in L1.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "arguments.h"
#include "tokens.h"

namespace dendritic_bert {

struct TokensById {
  std::vector<int32_t> tokens;
  std::vector<int64_t> id_start, unique_ids;
};

inline TokensById tokens_by_id(const Tokens& tokens) {
  struct Entry { int32_t id, token; };
  std::vector<Entry> entries(static_cast<size_t>(tokens.total)), other;
  size_t kept = 0;
  for (int64_t token = 0; token < tokens.total; ++token) {
    entries[kept] = {int32_t(tokens.ids[token]), int32_t(token)};
    kept += !masked(tokens, token);
  }
  entries.resize(kept);
  other.resize(kept);
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

  TokensById sorted;
  sorted.tokens.resize(kept);
  for (size_t i = 0; i < kept; ++i) {
    if (i == 0 || entries[i].id != entries[i - 1].id) {
      sorted.unique_ids.push_back(entries[i].id);
      sorted.id_start.push_back(int64_t(i));
    }
    sorted.tokens[i] = entries[i].token;
  }
  sorted.id_start.push_back(int64_t(kept));
  return sorted;
}

}  // namespace dendritic_bert
