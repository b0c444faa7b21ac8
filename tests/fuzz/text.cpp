// Bytes of any kind through the tokenizer, with all its settings, added tokens and truncation.
#include <algorithm>
#include <string>
#include <vector>

#include "../../csrc/engine/tokenizer.h"
#include "input.h"

namespace dendritic_bert::engine {
namespace {

using fuzz::check;

constexpr int32_t num_ids = 40;  // all that a tokenizer below gives are less
constexpr size_t no_limit = size_t(1) << 40;
const std::vector<int32_t> prefix = {30, 31}, suffix = {32};

std::vector<VocabularyEntry> vocabulary() {
  static const char* const tokens[] = {
      "[UNK]",  "a",        "##a",       "b",      "##b",   "ab",  "##ab",   "fox",      "##es",       "the",
      "!",      "[",        "]",         "\u00e9", "e",     "##e", "\u4e16", "##\u4e16", "\U0001f600", "##\U0001f600",
      "\ufffd", "##\ufffd", "unaffable", "##able", "\u0301"};
  std::vector<VocabularyEntry> entries;
  for (const char* token : tokens) entries.push_back({token, int32_t(entries.size())});
  return entries;
}

std::vector<AddedToken> added_tokens(unsigned choice) {
  switch (choice) {
    case 0: return {};
    case 1: return {{"[SEP]", 32, false}, {"[CLS]", 33, false}, {"[SEP][SEP]", 34, false}};
    case 2: return {{"[SEP]", 32, true}, {"P][C", 35, false}};
    default: return {{"a", 36, false}, {"ab", 37, true}, {"\xe4", 38, false}, {"\x01\x02", 39, false}};
  }
}

// The 64 tokenizers that six bits choose.
const Tokenizer& tokenizer_of(unsigned bits) {
  static std::unique_ptr<const Tokenizer> made[64];
  if (!made[bits]) {
    const NormalizerSettings settings = {bool(bits & 1), bool(bits & 2), bool(bits & 4), bool(bits & 8)};
    made[bits] = std::make_unique<Tokenizer>(
        settings, Vocabulary(vocabulary(), {"##", 0, 9}), AddedTokens(added_tokens(bits >> 4)), prefix, suffix, 4);
  }
  return *made[bits];
}

std::vector<int32_t> row_of(const PackedRows& rows, size_t row) {
  return {rows.ids.begin() + rows.cu_seqlens[row], rows.ids.begin() + rows.cu_seqlens[row + 1]};
}

// The row of a text that is cut, from that of the whole.
std::vector<int32_t> cut(const std::vector<int32_t>& whole, Truncation truncation) {
  if (whole.size() <= truncation.max_length) return whole;
  const auto room = int64_t(truncation.max_length - prefix.size() - suffix.size());
  const auto first =
      truncation.keeps_end ? whole.end() - int64_t(suffix.size()) - room : whole.begin() + int64_t(prefix.size());
  std::vector<int32_t> row = prefix;
  row.insert(row.end(), first, first + room);
  row.insert(row.end(), suffix.begin(), suffix.end());
  return row;
}

}  // namespace
}  // namespace dendritic_bert::engine

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dendritic_bert::engine;
  using dendritic_bert::fuzz::Copy;
  dendritic_bert::fuzz::Input input(data, size);
  const unsigned bits = input.take<uint8_t>() % 64;
  const auto repeats = input.take<uint8_t>();  // of the first text, so that it takes several parts
  const auto length = input.take<uint8_t>();
  const Tokenizer& tokenizer = tokenizer_of(bits);
  const Truncation truncation = {tokenizer.num_special_tokens() + length / 2, length % 2 != 0};
  std::vector<Copy<char>> copies;
  std::vector<std::string_view> views;
  while (input.left()) {
    std::string text(input.take_until('\xff'));
    if (copies.empty() && repeats > 239)
      for (const std::string once = text; !once.empty() && text.size() < size_t(repeats) * 20;) text += once;
    copies.emplace_back(text.data(), text.size());
    views.push_back({copies.back().data.get(), text.size()});
  }
  Texts texts;
  texts.size = views.size();
  texts.views = views.data();
  Workspace workspace = tokenizer.make_workspace(), used = tokenizer.make_workspace();
  tokenizer.encode(texts, 0, texts.size, {no_limit, false}, workspace);
  const PackedRows& whole = workspace.rows;
  check(whole.cu_seqlens.size() == texts.size + 1 && whole.cu_seqlens.back() == int64_t(whole.num_ids));
  check(std::all_of(whole.ids.begin(), whole.ids.begin() + int64_t(whole.num_ids),
                    [](int32_t id) { return id >= 0 && id < num_ids; }));
  for (int round = 0; round < 2; ++round) {  // the second time from the cache
    tokenizer.encode(texts, 0, texts.size, truncation, used);
    for (size_t row = 0; row < texts.size; ++row) check(row_of(used.rows, row) == cut(row_of(whole, row), truncation));
  }
  return 0;
}
