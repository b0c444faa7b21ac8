/* conformance MODEL CASES TOLERANCE: whether the engine gives on this machine what the package gave on another.
 *
 * CASES is written by tests/support/engine_cases.py: four int64 (number of texts, labels, texts that are cut, bytes),
 * the offsets of the texts (int64), their logits and scores (float32, [texts, labels]), and their bytes in UTF-8. A
 * number may be off by TOLERANCE, relative to 1 or to its magnitude; with 0 every bit must be the same. */
#include <dendritic_bert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(condition)                                                                          \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #condition, dendritic_bert_error()); \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

/* The bytes of a file, from a multiple of 64 on. */
static char* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  EXPECT(file && fseek(file, 0, SEEK_END) == 0);
  *size = (size_t)ftell(file);
  char* memory = malloc(*size + 64);
  EXPECT(memory && fseek(file, 0, SEEK_SET) == 0);
  memory += 64 - (uintptr_t)memory % 64;
  EXPECT(fread(memory, 1, *size, file) == *size);
  fclose(file);
  return memory;
}

static double largest_difference(const float* found, const float* expected, size_t size) {
  double largest = 0;
  for (size_t i = 0; i < size; ++i) {
    const double difference = fabs((double)found[i] - expected[i]) / fmax(1, fabs((double)expected[i]));
    if (!(difference <= largest)) largest = difference;
  }
  return memcmp(found, expected, size * sizeof(float)) == 0 ? 0 : fmax(largest, 1e-300);
}

int main(int argc, char** argv) {
  EXPECT(argc == 4);
  size_t size, model_size;
  const char* const cases = read_file(argv[2], &size);
  const double tolerance = atof(argv[3]);
  const int64_t* const sizes = (const int64_t*)cases;
  const size_t num_texts = (size_t)sizes[0], num_labels = (size_t)sizes[1], num_bytes = (size_t)sizes[3];
  const size_t num_logits = num_texts * num_labels;
  const int64_t num_truncated = sizes[2], *const offsets = sizes + 4;
  const float *const expected = (const float*)(offsets + num_texts + 1), *const expected_scores = expected + num_logits;
  const char* const bytes = (const char*)(expected_scores + num_logits);
  EXPECT(bytes + num_bytes == cases + size);

  dendritic_bert_model* model = dendritic_bert_open(argv[1]);
  EXPECT(model && dendritic_bert_num_labels(model) == num_labels);
  for (size_t i = 0; i < num_labels; ++i) EXPECT(dendritic_bert_label(model, i));
  EXPECT(!dendritic_bert_label(model, num_labels));

  const char** texts = malloc(num_texts * sizeof *texts);
  size_t* lengths = malloc(num_texts * sizeof *lengths);
  int32_t* short_offsets = malloc((num_texts + 1) * sizeof *short_offsets);
  float *logits = malloc(num_logits * sizeof *logits), *again = malloc(num_logits * sizeof *again);
  EXPECT(texts && lengths && short_offsets && logits && again);
  for (size_t i = 0; i < num_texts; ++i) {
    texts[i] = bytes + offsets[i];
    lengths[i] = (size_t)(offsets[i + 1] - offsets[i]);
  }
  for (size_t i = 0; i <= num_texts; ++i) short_offsets[i] = (int32_t)offsets[i];

  EXPECT(dendritic_bert_classify(model, texts, lengths, num_texts, 1, logits) == num_truncated);
  const double difference = largest_difference(logits, expected, num_logits);
  EXPECT(difference <= tolerance);

  /* Every way to pass texts, and any number of threads, gives the same bits. */
  EXPECT(dendritic_bert_classify(model, texts, lengths, num_texts, 3, again) == num_truncated);
  EXPECT(memcmp(again, logits, num_logits * sizeof *logits) == 0);
  EXPECT(dendritic_bert_classify_blob(model, bytes, num_bytes, short_offsets, num_texts, 1, again) == num_truncated);
  EXPECT(memcmp(again, logits, num_logits * sizeof *logits) == 0);
  EXPECT(dendritic_bert_classify_large_blob(model, bytes, num_bytes, offsets, num_texts, 3, again) == num_truncated);
  EXPECT(memcmp(again, logits, num_logits * sizeof *logits) == 0);
  for (size_t i = 0; i < num_texts; ++i)
    EXPECT(dendritic_bert_classify(model, texts + i, lengths + i, 1, 1, again + i * num_labels) >= 0);
  EXPECT(memcmp(again, logits, num_logits * sizeof *logits) == 0);

  dendritic_bert_scores(model, logits, num_texts, again);
  EXPECT(largest_difference(again, expected_scores, num_logits) <= 1e-6 + tolerance);
  dendritic_bert_close(model);

  /* A model in memory is the same one; one that is cut, changed, misplaced or not there is refused with a reason. */
  char* const memory = read_file(argv[1], &model_size);
  model = dendritic_bert_open_memory(memory, model_size);
  EXPECT(model && dendritic_bert_classify(model, texts, lengths, num_texts, 1, again) == num_truncated);
  EXPECT(memcmp(again, logits, num_logits * sizeof *logits) == 0);
  EXPECT(dendritic_bert_classify_blob(model, bytes, num_bytes - 1, short_offsets, num_texts, 1, again) == -1);
  EXPECT(strstr(dendritic_bert_error(), "the offsets fall"));
  EXPECT(dendritic_bert_classify_blob(model, NULL, 0, NULL, 0, 1, again) == 0); /* as Arrow has no text */
  dendritic_bert_close(model);
  EXPECT(!dendritic_bert_open_memory(memory, model_size - 1) && strstr(dendritic_bert_error(), "copy it again"));
  EXPECT(!dendritic_bert_open_memory(memory + 1, model_size) && strstr(dendritic_bert_error(), "multiple of 64"));
  memory[model_size - 1] ^= 1;
  EXPECT(!dendritic_bert_open_memory(memory, model_size) && strstr(dendritic_bert_error(), "checksum"));
  EXPECT(!dendritic_bert_open(NULL) && strstr(dendritic_bert_error(), "path is null"));
  EXPECT(!dendritic_bert_open("missing.dsn") && strstr(dendritic_bert_error(), "missing.dsn cannot be opened"));

  printf("%zu texts, largest difference %.3g\n", num_texts, difference);
  return 0;
}
