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

// The cache lines of so many words are fetched before the first of them is read. Without that a text took 1.19 times as
// long with a bag of words and 1.09 times with the embedded model (bench/results/engine_ablation.md).
constexpr size_t words_ahead = 64;

// A text is fetched while those before it are read, the first bytes of it, which are most sentences whole. Without that
// a list of str that lies in no cache took 1.06 to 1.13 times as long.
constexpr size_t texts_ahead = 4, fetched_bytes = 256;

constexpr size_t no_limit = std::numeric_limits<size_t>::max();

void prefetch(std::string_view text) {
  for (size_t at = 0; at < std::min(text.size(), fetched_bytes); at += 64) __builtin_prefetch(text.data() + at);
}

// The number of the word that comes next.
int32_t next_word(const std::vector<Span>& spans) { return spans.empty() ? 0 : spans.back().word + 1; }

// Moves `text` behind the white space there, and gives the number of its characters.
size_t skip_spaces(const char*& text, const char* end) {
  for (size_t count = 0;; ++count) {
    const char* next = text;
    if (text == end || !(find_record(decode_utf8(next, end)).flags & white_space)) return count;
    text = next;
  }
}

// How many characters of white space [begin, end) ends with.
size_t count_spaces_before(const char* begin, const char* end) {
  for (size_t count = 0;; ++count) {
    const char* last = end;
    while (last > begin && (*--last & 0xC0) == 0x80) {}
    const char* next = last;
    if (last == end || !(find_record(decode_utf8(next, end)).flags & white_space)) return count;
    end = last;
  }
}

// The end of a segment that begins at `text`: a space, across which nothing in BERT's tokenizer looks, or the end; or,
// in a text without spaces, the beginning of a character.
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
                     std::vector<int32_t> prefix, std::vector<int32_t> suffix, std::vector<PairPart> pair,
                     unsigned log2_cache_lines)
    : normalizer_(normalizer),
      vocabulary_(std::move(vocabulary)),
      added_tokens_(std::move(added_tokens)),
      prefix_(std::move(prefix)),
      suffix_(std::move(suffix)),
      pair_(std::move(pair)),
      log2_cache_lines_(log2_cache_lines) {}

bool Tokenizer::is_pair(const std::vector<PairPart>& parts) {
  return std::count_if(parts.begin(), parts.end(), [](PairPart part) { return part.id == PairPart::a_text; }) == 2;
}

int32_t Tokenizer::largest_id() const {
  int32_t largest = std::max(vocabulary_.largest_id(), added_tokens_.largest_id());
  for (const int32_t id : prefix_) largest = std::max(largest, id);
  for (const int32_t id : suffix_) largest = std::max(largest, id);
  for (const PairPart part : pair_) largest = std::max(largest, part.id);
  return largest;
}

int32_t Tokenizer::largest_type() const {
  int32_t largest = 0;
  for (const PairPart part : pair_) largest = std::max(largest, part.type);
  return largest;
}

void Tokenizer::encode(const Texts& texts, size_t first, size_t last, Truncation truncation,
                       Workspace& workspace) const {
  PackedRows& rows = workspace.rows;
  rows.clear();
  for (size_t i = first; i < last; ++i) {
    if (i + texts_ahead < texts.size) prefetch(texts[i + texts_ahead]);
    append_row(texts[i], truncation, workspace);
    rows.cu_seqlens.push_back(int64_t(rows.num_ids));
  }
  workspace.words.shrink();
}

void Tokenizer::encode_pairs(const Texts& texts, const Texts& second_texts, size_t first, size_t last,
                             Truncation truncation, Workspace& workspace) const {
  PackedRows& rows = workspace.rows;
  rows.clear();
  for (size_t i = first; i < last; ++i) {
    append_pair(texts[i], second_texts[i], truncation, workspace);
    rows.cu_seqlens.push_back(int64_t(rows.num_ids));
  }
  workspace.words.shrink();
}

void Tokenizer::append_row(std::string_view text, Truncation truncation, Workspace& workspace) const {
  PackedRows& rows = workspace.rows;
  rows.append(prefix_);
  const size_t begin = rows.num_ids, room = truncation.max_length - num_special_tokens();
  append_text(text, truncation.keeps_end ? no_limit : begin + room, workspace);
  if (rows.num_ids - begin > room) {
    ++rows.num_truncated;
    int32_t* row = rows.ids.data() + begin;
    if (truncation.keeps_end) std::memmove(row, rows.ids.data() + rows.num_ids - room, room * sizeof(int32_t));
    rows.num_ids = begin + room;
  }
  rows.append(suffix_);
}

void Tokenizer::append_pair(std::string_view first, std::string_view second, Truncation truncation,
                            Workspace& workspace) const {
  PackedRows& rows = workspace.rows;
  const size_t row = rows.num_ids, num_special = num_special_tokens_of_pair();
  const size_t room = truncation.max_length - num_special;
  // Both texts come first, behind room for all special tokens, so that then every id moves to the front or stays.
  rows.reserve(num_special);
  rows.num_ids += num_special;
  size_t starts[2], counts[2], kept[2];
  starts[0] = rows.num_ids;
  append_text(first, no_limit, workspace);
  starts[1] = rows.num_ids;
  counts[0] = starts[1] - starts[0];
  // It matters which text is the longer one, so that the second is read until it is that.
  append_text(second, truncation.keeps_end ? no_limit : starts[1] + std::max(counts[0], room), workspace);
  counts[1] = rows.num_ids - starts[1];
  rows.num_truncated += counts[0] + counts[1] > room;
  const bool first_is_longer = counts[0] > counts[1];
  const size_t shorter = std::min(counts[first_is_longer], room / 2);
  kept[first_is_longer] = shorter;
  kept[!first_is_longer] = std::min(counts[!first_is_longer], room - shorter);
  int32_t *const ids = rows.ids.data(), *out = ids + row;
  int text = 0;
  const bool has_types = largest_type() > 0;
  for (const PairPart part : pair_) {
    size_t count = 1;
    if (part.id == PairPart::a_text) {
      const size_t skipped = truncation.keeps_end ? counts[text] - kept[text] : 0;
      count = kept[text];
      if (count) std::memmove(out, ids + starts[text] + skipped, count * sizeof(int32_t));
      ++text;
    } else {
      *out = part.id;
    }
    out += count;
    if (has_types) rows.token_types.insert(rows.token_types.end(), count, part.type);
  }
  rows.num_ids = size_t(out - ids);
}

// Appends the ids of a text. May stop once there are more than most_ids.
void Tokenizer::append_text(std::string_view text, size_t most_ids, Workspace& workspace) const {
  for_each_part(text, workspace.finder, [&](const char* at, const char* end) {
    return append_piece(at, end, most_ids, workspace);
  }, [&](const char*, const AddedToken& token) { workspace.rows.append({token.id}); });
}

// Calls on_text(begin, end) for what lies before, between and behind the added tokens of a text, which may be nothing,
// and on_token(begin, token) for each of those, until on_text gives false.
template <class OnText, class OnToken>
void Tokenizer::for_each_part(std::string_view text, AddedTokenFinder& finder, const OnText& on_text,
                              const OnToken& on_token) const {
  const char *at = text.data(), *end = at + text.size();
  finder.start(added_tokens_, at, end);
  for (const char* searched = at;;) {
    const auto [start, token] = finder.find_from(searched);
    if (token && token->is_text) {
      searched = start + token->content.size();
      continue;
    }
    if (!on_text(at, start) || !token) return;
    on_token(start, *token);
    at = searched = start + token->content.size();
  }
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
    text = segment_end;
    if (text < end) workspace.words.keep_open_word(bytes_of_unknown_word(vocabulary_.most_characters()));
  }
  return true;
}

std::vector<Span> Tokenizer::find_spans(std::string_view text) const {
  std::vector<Span> spans;
  Normalizer normalizer(normalizer_);
  AlignedWords words;
  AddedTokenFinder finder;
  size_t num_read = 0;                 // characters
  const char* taken_to = text.data();  // by the last added token and the white space that it takes
  for_each_part(text, finder, [&](const char* at, const char* end) {
    for (const char* segment_end; at < end; at = segment_end) {
      segment_end = std::find(end_of_segment(at, end), end, ' ');
      normalizer.split(at, size_t(segment_end - at), num_read, words);
      append_spans(words, spans);
      num_read = words.num_read();
    }
    return true;
  }, [&](const char* at, const AddedToken& token) {
    Span span = {token.id, next_word(spans), int32_t(num_read), 0};
    if (token.takes_spaces_before) span.begin -= int32_t(count_spaces_before(taken_to, at));
    num_read += count_characters(token.content.data(), token.content.size());
    span.end = int32_t(num_read);
    taken_to = at + token.content.size();
    if (token.takes_spaces_behind) span.end += int32_t(skip_spaces(taken_to, text.data() + text.size()));
    spans.push_back(span);
  });
  return spans;
}

void Tokenizer::append_spans(const AlignedWords& words, std::vector<Span>& spans) const {
  std::vector<int32_t> ids;
  std::vector<uint32_t> ends;
  for (size_t i = 0; i < words.size(); ++i) {
    const uint32_t start = words.starts()[i], size = words.ends()[i] - start;
    ids.resize(size);
    ends.resize(size);
    const size_t num_ids = vocabulary_.tokenize(words.bytes() + start, size, ids.data(), ends.data());
    const int32_t word = next_word(spans);
    for (size_t piece = 0, begin = start; piece < num_ids; begin = start + ends[piece++]) {
      const uint32_t last = words.character_of(start + ends[piece] - 1);
      spans.push_back({ids[piece], word, int32_t(words.character_of(begin)), int32_t(last) + 1});
    }
  }
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
