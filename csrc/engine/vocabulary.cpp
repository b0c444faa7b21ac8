#include "vocabulary.h"

#include <algorithm>
#include <utility>

#include "unicode.h"

namespace dendritic_bert::engine {

Vocabulary::Vocabulary(const std::vector<VocabularyEntry>& entries, WordPieceSettings settings)
    : settings_(std::move(settings)), initial_(entries.size()), continuing_(entries.size()) {
  largest_id_ = settings_.unknown_id;
  const std::string_view prefix = settings_.continuing_prefix;
  for (const VocabularyEntry& entry : entries) {
    if (entry.token.empty()) continue;
    largest_id_ = std::max(largest_id_, entry.id);
    initial_.insert(entry.token, entry.id);
    if (entry.token.size() > prefix.size() && entry.token.substr(0, prefix.size()) == prefix)
      continuing_.insert(entry.token.substr(prefix.size()), entry.id);
  }
}

// Calls write(number, id, end) for each piece; once with number 0 and the whole word if that is unknown, last.
template <class Write>
size_t Vocabulary::for_each_piece(const char* word, size_t size, const Write& write) const {
  if (size > settings_.most_characters && count_characters(word, size) > settings_.most_characters) {
    write(0, settings_.unknown_id, size);
    return 1;
  }
  size_t count = 0;
  for (size_t done = 0; done < size;) {
    const PrefixTable::Match match = (done ? continuing_ : initial_).find_longest(word + done, size - done);
    if (match.length == 0) {
      write(0, settings_.unknown_id, size);
      return 1;
    }
    done += match.length;
    write(count++, match.id, done);
  }
  return count;
}

size_t Vocabulary::tokenize(const char* word, size_t size, int32_t* ids) const {
  return for_each_piece(word, size, [&](size_t number, int32_t id, size_t) { ids[number] = id; });
}

size_t Vocabulary::tokenize(const char* word, size_t size, int32_t* ids, uint32_t* ends) const {
  return for_each_piece(word, size, [&](size_t number, int32_t id, size_t end) {
    ids[number] = id;
    ends[number] = uint32_t(end);
  });
}

}  // namespace dendritic_bert::engine
