#include "tokenizer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace dendritic_bert::engine {
namespace {

// A long text is taken a few pages at a time, so that its words stay in the first-level cache and a text that is cut
// is not read to its end.
constexpr size_t segment_bytes = 4096;

// The cache lines of so many words are fetched before the first of them is read. Without that a text took 1.4 times as
// long.
constexpr size_t words_ahead = 64;

// The end of a segment that begins at `text`: a space, across which nothing in BERT's tokenizer looks, or the end; or, in
// a text without spaces, the beginning of a character.
const char* end_of_segment(const char* text, const char* end) {
  if (size_t(end - text) <= segment_bytes) return end;
  const char* const last = text + segment_bytes;
  for (const char* at = last; at > text; --at)
    if (*at == ' ') return at;
  for (const char* at = last; at > last - 4; --at)
    if ((*at & 0xC0) != 0x80) return at;
  return last;  // which is no part of a character
}

// So many bytes of a word have more than `most_characters` characters.
size_t bytes_of_unknown_word(size_t most_characters) {
  return most_characters < Tokenizer::most_text_bytes ? 4 * (most_characters + 1) : std::numeric_limits<size_t>::max();
}

}  // namespace

Tokenizer::Tokenizer(NormalizerSettings normalizer, Vocabulary vocabulary, AddedTokens added_tokens,
                     std::vector<int32_t> prefix, std::vector<int32_t> suffix, unsigned log2_cache_lines)
    : normalizer_(normalizer),
      vocabulary_(std::move(vocabulary)),
      added_tokens_(std::move(added_tokens)),
      prefix_(std::move(prefix)),
      suffix_(std::move(suffix)),
      log2_cache_lines_(log2_cache_lines) {}

void Tokenizer::encode(const Texts& texts, size_t first, size_t last, Truncation truncation,
                       Workspace& workspace) const {
  PackedRows& rows = workspace.rows;
  rows.clear();
  for (size_t i = first; i < last; ++i) {
    append_row(texts[i], truncation, workspace);
    rows.cu_seqlens.push_back(int64_t(rows.num_ids));
  }
  workspace.words.shrink();
}

void Tokenizer::append_row(std::string_view text, Truncation truncation, Workspace& workspace) const {
  PackedRows& rows = workspace.rows;
  rows.append(prefix_);
  const size_t begin = rows.num_ids, room = truncation.max_length - num_special_tokens();
  const size_t most_ids = truncation.keeps_end ? std::numeric_limits<size_t>::max() : begin + room;
  const char *at = text.data(), *end = at + text.size();
  workspace.finder.start(added_tokens_, at, end);
  bool goes_on = true;
  for (const char* searched = at; goes_on;) {
    const auto [start, token] = workspace.finder.find_from(searched);
    if (token && token->is_text) {
      searched = start + token->content.size();
      continue;
    }
    goes_on = append_piece(at, start, most_ids, workspace);
    if (!token) break;
    if (goes_on) rows.append({token->id});
    at = searched = start + token->content.size();
  }
  if (rows.num_ids - begin > room) {
    ++rows.num_truncated;
    int32_t* row = rows.ids.data() + begin;
    if (truncation.keeps_end) std::memmove(row, rows.ids.data() + rows.num_ids - room, room * sizeof(int32_t));
    rows.num_ids = begin + room;
  }
  rows.append(suffix_);
}

// Appends the ids of a text without added tokens. Stops, and returns false, once there are more than most_ids.
bool Tokenizer::append_piece(const char* text, const char* end, size_t most_ids, Workspace& workspace) const {
  workspace.normalizer.start(workspace.words);
  while (text < end) {
    const char* segment_end = end_of_segment(text, end);
    const bool more_follows = segment_end < end && *segment_end != ' ';
    workspace.normalizer.split(text, size_t(segment_end - text), more_follows, workspace.words);
    append_words(workspace);
    if (workspace.rows.num_ids > most_ids) return false;
    workspace.words.keep_open_word(bytes_of_unknown_word(vocabulary_.most_characters()));
    text = segment_end;
  }
  return true;
}

void Tokenizer::append_words(Workspace& workspace) const {
  const Words& words = workspace.words;
  WordCache& cache = workspace.cache;
  PackedRows& rows = workspace.rows;
  rows.reserve(words.num_bytes() + WordCache::most_ids);
  int32_t* ids = rows.ids.data() + rows.num_ids;
  WordKey keys[words_ahead];
  WordCache::Line* lines[words_ahead];
  for (size_t begin = 0; begin < words.size(); begin += words_ahead) {
    const size_t count = std::min(words.size() - begin, words_ahead);
    const uint32_t *starts = words.starts() + begin, *ends = words.ends() + begin;
    for (size_t i = 0; i < count; ++i) {
      keys[i] = WordKey(words.bytes() + starts[i], std::min<size_t>(ends[i] - starts[i], WordKey::most_bytes));
      lines[i] = cache.find_line(keys[i]);
      __builtin_prefetch(lines[i]);
    }
    for (size_t i = 0; i < count; ++i) {
      const char* word = words.bytes() + starts[i];
      const size_t size = ends[i] - starts[i];
      if (size > WordKey::most_bytes) {
        ids += vocabulary_.tokenize(word, size, ids);
        continue;
      }
      if (const WordCache::Entry* entry = lines[i]->find(keys[i])) {
        std::memcpy(ids, entry->ids, sizeof entry->ids);  // all four, which is one instruction
        ids += entry->num_ids();
        continue;
      }
      const size_t num_ids = vocabulary_.tokenize(word, size, ids);
      if (num_ids <= WordCache::most_ids) lines[i]->insert(keys[i], ids, num_ids);
      ids += num_ids;
    }
  }
  rows.num_ids = size_t(ids - rows.ids.data());
}

}  // namespace dendritic_bert::engine
