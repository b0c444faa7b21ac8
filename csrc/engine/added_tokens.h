// Tokens that are found in the text as it stands, before it is normalised: [CLS], [SEP] and what a user has added.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dendritic_bert::engine {

struct AddedToken {
  std::string content;  // not empty
  int32_t id;
  bool is_text;  // found, so that it hides what overlaps it, and then read as text
  bool takes_spaces_before = false, takes_spaces_behind = false;  // into its span; the ids are the same
};

// Of the tokens that begin at the first place where one does, the longest counts, as in the library's automaton
// ("leftmost longest"). Immutable, so that threads share it.
class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
      return a.content[0] != b.content[0] ? a.content[0] < b.content[0] : a.content.size() > b.content.size();
    });
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (groups_.empty() || groups_.back().first_byte != tokens_[i].content[0])
        groups_.push_back({tokens_[i].content[0], i, i});
      groups_.back().end = i + 1;
    }
  }

  size_t num_groups() const { return groups_.size(); }

  int32_t largest_id() const {  // -1 if there is none
    int32_t largest = -1;
    for (const AddedToken& token : tokens_) largest = std::max(largest, token.id);
    return largest;
  }

  // The first place of [text, end) where a token of a group begins, and that token; {end, nullptr} if there is none.
  std::pair<const char*, const AddedToken*> find_in_group(size_t group, const char* text, const char* end) const {
    for (const char* at = text; at < end; ++at) {
      at = static_cast<const char*>(std::memchr(at, groups_[group].first_byte, size_t(end - at)));
      if (!at) break;
      if (const AddedToken* token = longest_at(groups_[group], at, end)) return {at, token};
    }
    return {end, nullptr};
  }

 private:
  struct Group {  // the tokens [begin, end) have this first byte
    char first_byte;
    size_t begin, end;
  };

  const AddedToken* longest_at(const Group& group, const char* text, const char* end) const {
    for (size_t i = group.begin; i < group.end; ++i) {
      const std::string& content = tokens_[i].content;
      if (size_t(end - text) >= content.size() && std::memcmp(text, content.data(), content.size()) == 0)
        return &tokens_[i];
    }
    return nullptr;
  }

  std::vector<AddedToken> tokens_;
  std::vector<Group> groups_;
};

// Goes through the tokens of one text after another. Each group remembers where it comes next, so that no byte is
// searched for it twice, however many tokens of other groups there are.
class AddedTokenFinder {
 public:
  void start(const AddedTokens& tokens, const char* text, const char* end) {
    tokens_ = &tokens;
    end_ = end;
    next_.clear();
    for (size_t group = 0; group < tokens.num_groups(); ++group)
      next_.push_back(tokens.find_in_group(group, text, end));
  }

  // The first token that begins at `text` or behind it, and where; {end, nullptr} if there is none.
  std::pair<const char*, const AddedToken*> find_from(const char* text) {
    std::pair<const char*, const AddedToken*> first = {end_, nullptr};
    for (size_t group = 0; group < next_.size(); ++group) {
      if (next_[group].first < text) next_[group] = tokens_->find_in_group(group, text, end_);
      if (next_[group].first < first.first) first = next_[group];
    }
    return first;
  }

 private:
  const AddedTokens* tokens_ = nullptr;
  const char* end_ = nullptr;
  std::vector<std::pair<const char*, const AddedToken*>> next_;
};

}  // namespace dendritic_bert::engine
