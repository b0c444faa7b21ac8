// The unmasked tokens of a batch in the order of their ids: a stable radix sort, 11 bits a pass.
#pragma once

#include <cstdint>
#include <vector>

#include "arguments.h"
#include "tokens.h"

struct TokensById {
  std::vector<int64_t> tokens, id_start, unique_ids;
};

inline TokensById tokens_by_id(const Tokens& tokens) {
  struct Entry { int32_t id; int64_t token; };
  std::vector<Entry> entries, other;
  entries.reserve(size_t(tokens.total));
  for (int64_t token = 0; token < tokens.total; ++token)
    if (!masked(tokens, token)) entries.push_back({int32_t(tokens.ids[token]), token});

  constexpr int bits = 11, buckets = 1 << bits;
  other.resize(entries.size());
  for (int shift = 0; (tokens.vocab_size - 1) >> shift > 0; shift += bits) {
    int64_t start[buckets + 1] = {};
    for (const Entry& entry : entries) ++start[(entry.id >> shift) % buckets + 1];
    for (int b = 0; b < buckets; ++b) start[b + 1] += start[b];
    for (const Entry& entry : entries) other[size_t(start[(entry.id >> shift) % buckets]++)] = entry;
    entries.swap(other);
  }

  TokensById sorted;
  sorted.tokens.reserve(entries.size());
  for (const Entry& entry : entries) {
    if (sorted.unique_ids.empty() || sorted.unique_ids.back() != entry.id) {
      sorted.unique_ids.push_back(entry.id);
      sorted.id_start.push_back(int64_t(sorted.tokens.size()));
    }
    sorted.tokens.push_back(entry.token);
  }
  sorted.id_start.push_back(int64_t(sorted.tokens.size()));
  return sorted;
}
