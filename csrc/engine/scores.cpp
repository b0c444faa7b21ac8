#include "scores.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace dendritic_bert::engine {
namespace {

// The differences from the largest logit are rounded to float32, as in transformers' pipeline. Overwrites `powers`, of
// as many columns.
void apply_softmax(const float* logits, size_t columns, float temperature, double* powers, float* scores) {
  const float largest_logit = *std::max_element(logits, logits + columns), largest = largest_logit / temperature;
  // A small temperature makes quotients infinite, and their difference would be NaN.
  const bool overflows = std::isinf(largest);
  double sum = 0;
  for (size_t i = 0; i < columns; ++i) {
    const float difference = overflows ? (logits[i] - largest_logit) / temperature : logits[i] / temperature - largest;
    powers[i] = difference == 0 ? 1.0 : std::exp(double(difference));  // of two classes, one is the largest
    sum += powers[i];
  }
  const double share = 1 / sum;
  for (size_t i = 0; i < columns; ++i) scores[i] = float(powers[i] * share);
}

}  // namespace

void Scoring::apply(const float* logits, size_t rows, size_t columns, float* scores) const {
  switch (function) {
    case ScoreFunction::none:
      if (scores != logits) std::copy(logits, logits + rows * columns, scores);
      return;
    case ScoreFunction::sigmoid:
      for (size_t i = 0; i < rows * columns; ++i)
        scores[i] = float(1 / (1 + std::exp(-double(logits[i] / temperature))));
      return;
    case ScoreFunction::softmax: {
      std::vector<double> powers(columns);
      for (size_t row = 0; row < rows; ++row)
        apply_softmax(logits + row * columns, columns, temperature, powers.data(), scores + row * columns);
      return;
    }
  }
}

}  // namespace dendritic_bert::engine
