// Several users of one model, each on several threads of the engine: for ThreadSanitizer, and the same bits for all.
//
//     threads MODEL
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/engine/dendritic_bert.h"
#include "input.h"

namespace {

constexpr size_t num_users = 4, num_calls = 20, num_texts = 300, num_threads = 3;

// Texts of 400 bytes, so that a call is large enough for three threads; most of their words are of this user alone.
std::vector<std::string> texts_of(size_t user) {
  std::vector<std::string> texts(num_texts);
  for (size_t i = 0; i < num_texts; ++i)
    while (texts[i].size() < 400)
      texts[i] += "the quick fox " + std::to_string((user * num_texts + i) * 1000 + texts[i].size()) + " caf\u00e9 ";
  return texts;
}

std::vector<float> classify(const dendritic_bert_model* model, const std::vector<std::string>& texts, size_t threads) {
  std::vector<const char*> pointers;
  std::vector<size_t> lengths;
  for (const std::string& text : texts) {
    pointers.push_back(text.data());
    lengths.push_back(text.size());
  }
  std::vector<float> logits(texts.size() * dendritic_bert_num_labels(model));
  const int64_t cut =
      dendritic_bert_classify(model, pointers.data(), lengths.data(), texts.size(), threads, logits.data());
  dendritic_bert::fuzz::check(cut == int64_t(texts.size()));
  return logits;
}

// A call that fails leaves its error on the thread that made it.
void fail(const dendritic_bert_model* model, size_t user) {
  const int64_t offsets[] = {0, int64_t(user) + 9};
  float logits[64];
  dendritic_bert::fuzz::check(dendritic_bert_classify_large_blob(model, "short", 5, offsets, 1, 1, logits) == -1);
  dendritic_bert::fuzz::check(std::strstr(dendritic_bert_error(), "offsets"));
}

}  // namespace

int main(int num_arguments, char** arguments) {
  dendritic_bert_model* const model = num_arguments == 2 ? dendritic_bert_open(arguments[1]) : nullptr;
  if (!model) {
    std::fprintf(stderr, "threads MODEL: %s\n", dendritic_bert_error());
    return 2;
  }
  std::vector<std::thread> users;
  for (size_t user = 0; user < num_users; ++user)
    users.emplace_back([=] {
      const std::vector<std::string> texts = texts_of(user);
      const std::vector<float> expected = classify(model, texts, 1);
      for (size_t call = 0; call < num_calls; ++call) {
        dendritic_bert::fuzz::check(classify(model, texts, num_threads) == expected);
        fail(model, user);
      }
    });
  for (std::thread& user : users) user.join();
  dendritic_bert_close(model);
  std::printf("%zu users called %s %zu times each, on %zu threads\n", num_users, arguments[1], num_calls, num_threads);
}
