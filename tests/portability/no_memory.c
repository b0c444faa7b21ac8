/* no_memory MODEL: what the engine does where the system gives no memory, at every place where it asks for some.
 *
 * The program's own malloc and aligned_alloc fail once, at the first request, the second, and so on, until a run needs
 * fewer. A call then fails with an error, and the next one gives the logits that it gave before. It is for glibc, whose
 * own functions serve. */
#include <dendritic_bert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(condition)                                                                                            \
  do {                                                                                                               \
    if (!(condition)) {                                                                                              \
      fprintf(                                                                                                       \
          stderr, "request %ld, line %d: not so: %s (%s)\n", request, __LINE__, #condition, dendritic_bert_error()); \
      exit(1);                                                                                                       \
    }                                                                                                                \
  } while (0)

enum { num_texts = 3, most_labels = 16 };

extern void* __libc_malloc(size_t size);
extern void* __libc_memalign(size_t alignment, size_t size);

static long request;   /* the one that fails */
static long countdown; /* to it; 0 where none is to fail any more */

static int fails(void) { return countdown && --countdown == 0; }

void* malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }

void* aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }

/* Whether the request has failed, after which none does. */
static int has_failed(void) {
  const int has = countdown == 0;
  countdown = 0;
  return has;
}

static int64_t classify(const dendritic_bert_model* model, const char* const* texts, float* logits) {
  size_t lengths[num_texts];
  for (int i = 0; i < num_texts; ++i) lengths[i] = strlen(texts[i]);
  const int64_t cut = dendritic_bert_classify(model, texts, lengths, num_texts, 1, logits);
  if (cut >= 0) dendritic_bert_scores(model, logits, num_texts, logits + num_texts * most_labels);
  return cut;
}

int main(int argc, char** argv) {
  static char long_text[20001];
  const char* const texts[num_texts] = {"a charming journey", long_text, "caf\303\251"};
  float expected[2 * num_texts * most_labels] = {0}, found[2 * num_texts * most_labels] = {0};
  EXPECT(argc == 2);
  for (size_t i = 0; i + 1 < sizeof long_text; ++i) long_text[i] = "a charming journey "[i % 19];
  dendritic_bert_model* model = dendritic_bert_open(argv[1]);
  EXPECT(model && dendritic_bert_num_labels(model) <= most_labels);
  EXPECT(classify(model, texts, expected) >= 0);
  dendritic_bert_close(model);

  int classified = 0;
  for (request = 1; !classified; ++request) {
    countdown = request;
    model = dendritic_bert_open(argv[1]);
    if (!model) {
      EXPECT(has_failed() && strstr(dendritic_bert_error(), "memory"));
      continue;
    }
    const int64_t cut = classify(model, texts, found);
    classified = !has_failed();
    EXPECT(cut >= 0 || !classified);
    EXPECT(cut >= 0 || strstr(dendritic_bert_error(), "memory"));
    EXPECT(classify(model, texts, found) >= 0);
    EXPECT(memcmp(found, expected, sizeof found) == 0);
    dendritic_bert_close(model);
  }
  EXPECT(request > 10);
  printf("%ld requests\n", request - 1);
  return 0;
}
