// What the logits of a text stand for: the rules of dendritic_bert/inference/scores.py. Sums and exponentials are taken
// in double and rounded once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dendritic_bert::engine {

// The codes in the file and of scores.py.
enum class ScoreFunction : int { sigmoid, softmax, none };

// The logits are divided by the temperature before a softmax or a sigmoid. `scores` may be `logits`.
struct Scoring {
  ScoreFunction function = ScoreFunction::softmax;
  float temperature = 1;

  void apply(const float* logits, size_t rows, size_t columns, float* scores) const;
};

// The first of the largest.
inline size_t largest_of(const float* scores, size_t columns) {
  size_t largest = 0;
  for (size_t i = 1; i < columns; ++i)
    if (scores[i] > scores[largest]) largest = i;
  return largest;
}

}  // namespace dendritic_bert::engine
