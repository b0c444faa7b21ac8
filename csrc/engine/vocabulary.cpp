#include "vocabulary.h"

#include <utility>

#include "unicode.h"

namespace dendritic_bert::engine {

Vocabulary::Vocabulary(const std::vector<VocabularyEntry>& entries, WordPieceSettings settings)
    : settings_(std::move(settings)), initial_(entries.size()), continuing_(entries.size()) {
  const std::string_view prefix = settings_.continuing_prefix;
  for (const VocabularyEntry& entry : entries) {
    if (entry.token.empty()) continue;
    initial_.insert(entry.token, entry.id);
    if (entry.token.size() > prefix.size() && entry.token.substr(0, prefix.size()) == prefix)
      continuing_.insert(entry.token.substr(prefix.size()), entry.id);
  }
}

size_t Vocabulary::tokenize(const char* word, size_t size, int32_t* ids) const {
  if (size > settings_.most_characters && count_characters(word, size) > settings_.most_characters) {
    ids[0] = settings_.unknown_id;
    return 1;
  }
  size_t count = 0;
  for (size_t done = 0; done < size;) {
    const PrefixTable::Match match = (done ? continuing_ : initial_).find_longest(word + done, size - done);
    if (match.length == 0) {
      ids[0] = settings_.unknown_id;
      return 1;
    }
    ids[count++] = match.id;
    done += match.length;
  }
  return count;
}

}  // namespace dendritic_bert::engine
