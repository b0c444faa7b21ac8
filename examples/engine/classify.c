/* Labels of the lines of standard input, without Python: classify MODEL < texts.txt
 *
 *   dendritic-bert export my-model model.dsn --format engine
 *   cc examples/engine/classify.c -I csrc/engine -L DIR -ldendritic_bert -o classify */
#define _POSIX_C_SOURCE 200809L /* for getline */
#include <dendritic_bert.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char* why) {
  fprintf(stderr, "%s\n", why);
  return 1;
}

static int fail_by_system(const char* what) {
  perror(what);
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 2) return fail("usage: classify MODEL < texts.txt");
  dendritic_bert_model* model = dendritic_bert_open(argv[1]);
  if (!model) return fail(dendritic_bert_error());
  const size_t num_labels = dendritic_bert_num_labels(model);
  float* scores = malloc(num_labels * sizeof(float));
  if (!scores) return fail_by_system("no room for the scores of a text");
  char* line = NULL;
  size_t room = 0;
  ssize_t size;
  while ((size = getline(&line, &room, stdin)) > 0) {
    const char* text = line;
    const size_t length = (size_t)size - (line[size - 1] == '\n');
    size_t best = 0;
    if (dendritic_bert_classify(model, &text, &length, 1, 1, scores) < 0) return fail(dendritic_bert_error());
    dendritic_bert_scores(model, scores, 1, scores);
    for (size_t i = 1; i < num_labels; ++i)
      if (scores[i] > scores[best]) best = i;
    if (printf("%s\t%.9g\n", dendritic_bert_label(model, best), scores[best]) < 0) break;
  }
  if (fflush(stdout) || ferror(stdout)) return fail_by_system("standard output cannot be written");
  if (!feof(stdin)) return fail_by_system("standard input cannot be read");
  free(line);
  free(scores);
  dendritic_bert_close(model);
  return 0;
}
