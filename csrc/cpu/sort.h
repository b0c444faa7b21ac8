// The unmasked tokens of a batch in the order of their ids: a stable radix sort, 11 bits a pass.
#pragma once

#include <cstdint>
#include <vector>

#include "arguments.h"
#include "tokens.h"

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
  constexpr int bits = 11, buckets = 1 << bits;
  for (int shift = 0; (tokens.vocab_size - 1) >> shift > 0; shift += bits) {
    uint32_t start[buckets + 1] = {};
    for (const Entry& entry : entries) ++start[(entry.id >> shift) % buckets + 1];
    for (int b = 0; b < buckets; ++b) start[b + 1] += start[b];
    for (const Entry& entry : entries) other[start[(entry.id >> shift) % buckets]++] = entry;
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
