/* Labels of the lines of standard input, without Python: classify MODEL < texts.txt
 *
 *   dendritic-bert export my-model model.dsn --format engine
 *   cc examples/engine/classify.c -I csrc/engine -L DIR -ldendritic_bert -o classify */
#include <dendritic_bert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char** argv) {
  static char line[1 << 20];
  dendritic_bert_model* model = argc == 2 ? dendritic_bert_open(argv[1]) : NULL;
  if (!model) {
    fprintf(stderr, "%s\n", argc == 2 ? dendritic_bert_error() : "usage: classify MODEL < texts.txt");
    return 1;
  }
  const size_t num_labels = dendritic_bert_num_labels(model);
  float* scores = malloc(num_labels * sizeof(float));
  while (scores && fgets(line, sizeof line, stdin)) {
    const char* text = line;
    const size_t length = strcspn(line, "\n");
    size_t best = 0;
    if (dendritic_bert_classify(model, &text, &length, 1, 1, scores) < 0) {
      fprintf(stderr, "%s\n", dendritic_bert_error());
      return 1;
    }
    dendritic_bert_scores(model, scores, 1, scores);
    for (size_t i = 1; i < num_labels; ++i)
      if (scores[i] > scores[best]) best = i;
    printf("%s\t%.9g\n", dendritic_bert_label(model, best), scores[best]);
  }
  free(scores);
  dendritic_bert_close(model);
  return 0;
}
