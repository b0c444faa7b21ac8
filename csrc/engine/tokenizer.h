// Texts, and pairs of texts, to the ids of BERT's tokenizer, packed: the same as those of Hugging Face's tokenizers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "normalizer.h"
#include "texts.h"
#include "vocabulary.h"
#include "word_cache.h"
#include "words.h"

namespace dendritic_bert::engine {

// How long a row may be, its special tokens included; a longer one keeps the beginning of its text or the end.
struct Truncation {
  size_t max_length;
  bool keeps_end;
};

// What the row of a pair is made of: special tokens, and either text in its turn, whose tokens have one type.
struct PairPart {
  static constexpr int32_t a_text = -1;  // in the place of an id
  int32_t id, type;
};

// A token of a text: from which of its characters, [begin, end), it comes, and to which of its words it belongs, where
// an added token is a word.
struct Span {
  int32_t id, word, begin, end;
};

// Rows one behind another. Used again and again, so that it keeps its memory.
struct PackedRows {
  static constexpr size_t most_idle_ids = 1 << 20;  // 4 MB, as much as the cache of words takes

  std::vector<int32_t> ids;          // the first num_ids count
  std::vector<int32_t> token_types;  // of pairs; empty where all are 0
  std::vector<int64_t> cu_seqlens;
  size_t num_ids = 0, num_truncated = 0;

  void clear() {
    cu_seqlens.assign(1, 0);
    token_types.clear();
    num_ids = num_truncated = 0;
  }

  // Gives back the memory of a long text or of many.
  void shrink() {
    if (ids.size() > most_idle_ids) *this = PackedRows();
  }

  void reserve(size_t more) {
    if (num_ids + more > ids.size()) ids.resize((num_ids + more) * 3 / 2);
  }

  void append(const std::vector<int32_t>& values) {
    reserve(values.size());
    std::copy(values.begin(), values.end(), ids.begin() + int64_t(num_ids));
    num_ids += values.size();
  }
};

// What one thread needs beside the tokenizer.
struct Workspace {
  Workspace(NormalizerSettings settings, unsigned log2_cache_lines) : normalizer(settings), cache(log2_cache_lines) {}

  Normalizer normalizer;
  WordCache cache;
  Words words;
  AddedTokenFinder finder;
  PackedRows rows;
};

// Immutable: threads share it, each with a workspace of its own.
class Tokenizer {
 public:
  // 2^16 lines are 4 MB and hold 131,072 words. After 100,000 sentences of reviews, 1.0 % of the words of further ones
  // are not there; with 2^15 lines 1.7 %, with 2^14 3.2 %.
  static constexpr unsigned default_log2_cache_lines = 16;
  static constexpr size_t most_text_bytes = size_t(1) << 30;  // places within a text are of 32 bits

  // `pair` has two texts, or no part at all: then there are no pairs.
  Tokenizer(NormalizerSettings normalizer, Vocabulary vocabulary, AddedTokens added_tokens, std::vector<int32_t> prefix,
            std::vector<int32_t> suffix, std::vector<PairPart> pair = {},
            unsigned log2_cache_lines = default_log2_cache_lines);
  static bool is_pair(const std::vector<PairPart>& parts);

  Workspace make_workspace() const { return Workspace(normalizer_, log2_cache_lines_); }
  size_t num_special_tokens() const { return prefix_.size() + suffix_.size(); }
  bool has_pairs() const { return !pair_.empty(); }
  size_t num_special_tokens_of_pair() const { return pair_.size() - 2; }

  // The largest that an id or a token type may be.
  int32_t largest_id() const;
  int32_t largest_type() const;

  // The rows of texts [first, last), of at most most_text_bytes each, into workspace.rows. max_length must leave room
  // for the special tokens.
  void encode(const Texts& texts, size_t first, size_t last, Truncation truncation, Workspace& workspace) const;

  // The rows of pairs, if the tokenizer has them. Of a row that is too long the longer text is cut until both are of
  // one length, and then both are: "longest_first" of transformers.
  void encode_pairs(const Texts& texts, const Texts& second_texts, size_t first, size_t last, Truncation truncation,
                    Workspace& workspace) const;

  // The tokens of a text, without special tokens around it, and where in the text they come from.
  std::vector<Span> find_spans(std::string_view text) const;

 private:
  void append_row(std::string_view text, Truncation truncation, Workspace& workspace) const;
  void append_pair(std::string_view first, std::string_view second, Truncation truncation, Workspace& workspace) const;
  void append_text(std::string_view text, size_t most_ids, Workspace& workspace) const;
  template <class OnText, class OnToken>
  void for_each_part(std::string_view text, AddedTokenFinder& finder, const OnText& on_text,
                     const OnToken& on_token) const;
  bool append_piece(const char* text, const char* end, size_t most_ids, Workspace& workspace) const;
  void append_words(Workspace& workspace) const;
  void append_spans(const AlignedWords& words, std::vector<Span>& spans) const;

  NormalizerSettings normalizer_;
  Vocabulary vocabulary_;
  AddedTokens added_tokens_;
  std::vector<int32_t> prefix_, suffix_;
  std::vector<PairPart> pair_;
  unsigned log2_cache_lines_;
};

}  // namespace dendritic_bert::engine
