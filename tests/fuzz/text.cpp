// Bytes of any kind through the tokenizer, with all its settings, added tokens and truncation: as single texts, as
// pairs, and as tokens with their places in the text.
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
const std::vector<PairPart> pair = {{30, 0}, {PairPart::a_text, 0}, {31, 1}, {PairPart::a_text, 1}, {32, 1}};

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
    made[bits] = std::make_unique<Tokenizer>(settings, Vocabulary(vocabulary(), {"##", 0, 9}),
                                             AddedTokens(added_tokens(bits >> 4)), prefix, suffix, pair, 4);
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

// The ids of a text, without those around it.
std::vector<int32_t> text_of(const PackedRows& whole, size_t row) {
  const std::vector<int32_t> ids = row_of(whole, row);
  return {ids.begin() + int64_t(prefix.size()), ids.end() - int64_t(suffix.size())};
}

// The tokens of a text are those of its row, its words have numbers in their order, and no place is beyond its bytes.
void check_spans(const std::vector<Span>& spans, const std::vector<int32_t>& ids, std::string_view text) {
  check(spans.size() == ids.size());
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span span = spans[i];
    check(span.id == ids[i] && span.begin >= 0 && span.begin < span.end && size_t(span.end) <= text.size());
    check(i == 0 ? span.word == 0 : span.word == spans[i - 1].word || span.word == spans[i - 1].word + 1);
  }
}

// What is left of a text that may have so many tokens.
std::vector<int32_t> left_of(const std::vector<int32_t>& ids, size_t count, bool keeps_end) {
  const auto first = ids.begin() + int64_t(keeps_end ? ids.size() - count : 0);
  return {first, first + int64_t(count)};
}

// The row of a pair has as much of each text as "longest_first" of Hugging Face's tokenizers leaves of it.
void check_pair(const PackedRows& rows, size_t row, const std::vector<int32_t>& first,
                const std::vector<int32_t>& second, Truncation truncation) {
  size_t counts[2] = {first.size(), second.size()};
  const size_t room = truncation.max_length - 3, longer = counts[0] > counts[1] ? 0 : 1, shorter = 1 - longer;
  if (counts[0] + counts[1] > room) {
    counts[longer] = counts[shorter] > room ? counts[shorter] : std::max(counts[shorter], room - counts[shorter]);
    if (counts[0] + counts[1] > room) {
      counts[shorter] = room / 2;
      counts[longer] = room - room / 2;
    }
  }
  std::vector<int32_t> expected = {30}, types = {0};
  for (const int32_t id : left_of(first, counts[0], truncation.keeps_end)) expected.push_back(id);
  types.resize(expected.size(), 0);
  expected.push_back(31);
  for (const int32_t id : left_of(second, counts[1], truncation.keeps_end)) expected.push_back(id);
  expected.push_back(32);
  types.resize(expected.size(), 1);
  check(row_of(rows, row) == expected);
  const auto* const begin = rows.token_types.data() + rows.cu_seqlens[row];
  check(std::equal(types.begin(), types.end(), begin));
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
  for (size_t row = 0; row < texts.size; ++row)
    check_spans(tokenizer.find_spans(views[row]), text_of(whole, row), views[row]);
  std::vector<std::string_view> others(views.rbegin(), views.rend());
  Texts second_texts = texts;
  second_texts.views = others.data();
  for (const Truncation limit :
       {Truncation{no_limit, false}, Truncation{truncation.max_length, truncation.keeps_end}}) {
    tokenizer.encode_pairs(texts, second_texts, 0, texts.size, limit, used);
    for (size_t row = 0; row < texts.size; ++row)
      check_pair(used.rows, row, text_of(whole, row), text_of(whole, texts.size - 1 - row), limit);
  }
  return 0;
}
