#include "model.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <utility>

#include "threads.h"

namespace dendritic_bert::engine {
namespace {

// Texts whose ids are made and then read by the kernel: those of 64 texts of 25 tokens take 6 kB of L1.
constexpr size_t block_texts = 64;
// It does not pay to start a thread for fewer bytes of text: these take some 100 us, starting a thread 20.
constexpr size_t bytes_per_thread = 1 << 15;

std::vector<int32_t> read_ids(ModelFile& file, const char* name, int64_t vocab_size) {
  const Array<int32_t> ids = file.array<int32_t>(name, 1);
  for (const int32_t id : ids)
    if (id < 0 || id >= vocab_size) file.fail("an id of its " + std::string(name) + " is not in its tables");
  return std::vector<int32_t>(ids.begin(), ids.end());
}

// What the row of a pair is made of; nothing if the file has no pairs.
std::vector<PairPart> read_pair(ModelFile& file, int64_t vocab_size) {
  std::vector<PairPart> pair;
  if (!file.has("pair")) return pair;
  const Array<int32_t> ids = file.array<int32_t>("pair", 1), types = file.array<int32_t>("pair_types", 1);
  file.expect(ids.size == types.size, "its pair and pair_types are not of one size");
  if (!file.is_valid()) return pair;
  for (int64_t i = 0; i < ids.size; ++i) {
    pair.push_back({ids.data[i], types.data[i]});
    file.expect(pair[i].id >= PairPart::a_text && pair[i].id < vocab_size && pair[i].type >= 0,
                "an id or a type of its pair is out of range");
  }
  file.expect(pair.empty() || Tokenizer::is_pair(pair), "its pair has not two texts");
  return pair;
}

std::shared_ptr<SharedTokenizer> read_tokenizer(ModelFile& file, int64_t vocab_size) {
  const std::vector<std::string_view> tokens = file.strings("vocabulary"), added = file.strings("added_tokens");
  const std::vector<int32_t> ids = read_ids(file, "vocabulary_ids", vocab_size);
  const std::vector<int32_t> added_ids = read_ids(file, "added_token_ids", vocab_size);
  const Array<uint8_t> added_are_text = file.array<uint8_t>("added_tokens_are_text", 1);
  file.expect(
      ids.size() == tokens.size() && added_ids.size() == added.size() && size_t(added_are_text.size) == added.size(),
      "its tokens and their ids are not of one number");
  WordPieceSettings pieces = {file.text("continuing_prefix"), int32_t(file.integer("unknown_id", 0, vocab_size - 1)),
                              size_t(file.integer("most_characters", 0, std::numeric_limits<int64_t>::max()))};
  const NormalizerSettings normalizer = {
      file.flag("clean_text"), file.flag("handle_chinese_chars"), file.flag("strip_accents"), file.flag("lowercase")};
  std::vector<int32_t> prefix = read_ids(file, "prefix", vocab_size), suffix = read_ids(file, "suffix", vocab_size);
  std::vector<PairPart> pair = read_pair(file, vocab_size);
  if (!file.is_valid()) return nullptr;
  std::vector<VocabularyEntry> entries;
  for (size_t i = 0; i < tokens.size(); ++i) entries.push_back({tokens[i], ids[i]});
  std::vector<AddedToken> added_tokens;
  for (size_t i = 0; i < added.size(); ++i)
    if (!added[i].empty()) added_tokens.push_back({std::string(added[i]), added_ids[i], added_are_text.data[i] != 0});
  return std::make_shared<SharedTokenizer>(Tokenizer(normalizer, Vocabulary(entries, std::move(pieces)),
                                                     AddedTokens(std::move(added_tokens)), std::move(prefix),
                                                     std::move(suffix), std::move(pair)));
}

bool are_finite(const float* values, size_t size) {
  constexpr uint32_t exponent = 0x7F800000;  // all of whose bits are set in NaN and infinity
  bool are = true;
  for (size_t i = 0; i < size; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    are &= (bits & exponent) != exponent;
  }
  return are;
}

}  // namespace

std::unique_ptr<Model> Model::read(std::string_view bytes, std::string& error,
                                   std::shared_ptr<SharedTokenizer> tokenizer) {
  ModelFile file(bytes);
  std::unique_ptr<Model> model;
  if (file.is_valid()) model.reset(new Model(file, std::move(tokenizer)));
  error = file.error();
  return file.is_valid() ? std::move(model) : nullptr;
}

Model::Model(ModelFile& file, std::shared_ptr<SharedTokenizer> shared)
    : tables_(read_tables(file)), tokenizer_(shared ? std::move(shared) : read_tokenizer(file, tables_.vocab_size)) {
  const int64_t max_length = file.integer("max_length", 0, std::numeric_limits<int64_t>::max());
  // No row is as long as this, behind whose end a size_t of 32 bits counts, too.
  truncation_ = {size_t(std::min(max_length, 3 * int64_t(Tokenizer::most_text_bytes))), file.flag("keeps_end")};
  for (std::string_view label : file.strings("labels")) labels_.emplace_back(label);
  if (file.has("text_columns"))
    for (std::string_view name : file.strings("text_columns")) text_columns_.emplace_back(name);
  file.expect(labels_.size() == num_labels(), "it does not name every label");
  scoring_ = {ScoreFunction(file.integer("score_function", 0, 2)), float(file.number("temperature"))};
  file.expect(scoring_.temperature > 0, "its temperature is not positive");
  if (!file.is_valid()) return;
  const Tokenizer& tokenizer = tokenizer_->tokenizer;
  file.expect(tokenizer.largest_id() < tables_.vocab_size, "its tokenizer has an id that is not in its tables");
  file.expect(
      truncation_.max_length >= tokenizer.num_special_tokens(), "its max_length leaves no room for the special tokens");
  has_pairs_ = tokenizer.has_pairs() && tokenizer.largest_type() < tables_.num_types &&
               truncation_.max_length >= tokenizer.num_special_tokens_of_pair();
}

Outcome Model::classify(const Texts& texts, const Texts* second_texts, size_t threads, const Scoring* scoring,
                        float* values, int32_t* labels) const {
  const size_t num_bytes = texts.num_bytes + (second_texts ? second_texts->num_bytes : 0);
  const size_t num_blocks = (texts.size + block_texts - 1) / block_texts;
  std::atomic<size_t> next_block{0};
  std::atomic<int64_t> num_truncated{0}, longest_row{0}, first_not_finite{std::numeric_limits<int64_t>::max()};
  run_on_threads(std::min({threads, num_bytes / bytes_per_thread + 1, num_blocks}), [&] {
    const Workspaces::Borrowed workspace(tokenizer_->workspaces);
    Outcome own;
    for (size_t first; (first = block_texts * next_block++) < texts.size;) {
      const size_t last = std::min(first + block_texts, texts.size), columns = num_labels();
      classify_block(texts, second_texts, first, last, *workspace, own, values);
      if (!scoring || own.longest_row) continue;
      scoring->apply(values + first * columns, last - first, columns, values + first * columns);
      for (size_t i = first; i < last; ++i) labels[i] = int32_t(largest_of(values + i * columns, columns));
    }
    num_truncated += own.num_truncated;
    for (int64_t seen = longest_row;
         seen < own.longest_row && !longest_row.compare_exchange_weak(seen, own.longest_row);) {}
    if (own.first_not_finite >= 0)
      for (int64_t seen = first_not_finite;
           seen > own.first_not_finite && !first_not_finite.compare_exchange_weak(seen, own.first_not_finite);) {}
  });
  const int64_t first = first_not_finite;
  return {num_truncated, longest_row, first == std::numeric_limits<int64_t>::max() ? -1 : first};
}

void Model::classify_block(const Texts& texts, const Texts* second_texts, size_t first, size_t last,
                           Workspace& workspace, Outcome& outcome, float* logits) const {
  const Tokenizer& tokenizer = tokenizer_->tokenizer;
  if (second_texts) tokenizer.encode_pairs(texts, *second_texts, first, last, truncation_, workspace);
  else tokenizer.encode(texts, first, last, truncation_, workspace);
  const PackedRows& rows = workspace.rows;
  outcome.num_truncated += int64_t(rows.num_truncated);
  const int64_t* bounds = rows.cu_seqlens.data();
  for (size_t row = 0; row < last - first; ++row) {
    const int64_t length = bounds[row + 1] - bounds[row];
    if (length > num_positions()) outcome.longest_row = std::max(outcome.longest_row, length);
  }
  if (outcome.longest_row) return;
  float* block_logits = logits + first * num_labels();
  const int32_t* token_types = rows.token_types.empty() ? nullptr : rows.token_types.data();
  compute_logits(tables_, {rows.ids.data(), token_types, bounds, int64_t(last - first)}, block_logits);
  if (are_finite(block_logits, (last - first) * num_labels())) return;
  for (size_t i = first; i < last && outcome.first_not_finite < 0; ++i)
    if (!are_finite(logits + i * num_labels(), num_labels())) outcome.first_not_finite = int64_t(i);
}

}  // namespace dendritic_bert::engine
