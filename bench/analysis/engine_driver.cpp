// Classifies the lines of a file through the engine's functions of C.
//
//     driver MODEL TEXTS THREADS SECONDS
//
// goes over them for so long, but once at least. It prints the fewest microseconds a text that a pass took, by the
// clock and of the processor, and a number that depends on the bits of all logits.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "dendritic_bert.h"

namespace {

constexpr size_t texts_per_call = 4096;

struct Lines {
  std::vector<std::string> texts;
  std::vector<const char*> pointers;
  std::vector<size_t> lengths;
};

Lines read_lines(const char* path) {
  Lines lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.texts.push_back(line);
  for (const std::string& text : lines.texts) {
    lines.pointers.push_back(text.data());
    lines.lengths.push_back(text.size());
  }
  return lines;
}

// Of all threads of this process.
double processor_seconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

uint32_t mix(uint32_t sum, const std::vector<float>& logits, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, &logits[i], sizeof bits);
    sum = sum * 31 + bits;
  }
  return sum;
}

}  // namespace

int main(int num_arguments, char** arguments) {
  dendritic_bert_model* const model = num_arguments == 5 ? dendritic_bert_open(arguments[1]) : nullptr;
  if (!model) {
    std::fprintf(stderr, "driver MODEL TEXTS THREADS SECONDS: %s\n", dendritic_bert_error());
    return 2;
  }
  const Lines lines = read_lines(arguments[2]);
  const size_t threads = std::strtoull(arguments[3], nullptr, 10), columns = dendritic_bert_num_labels(model);
  const std::chrono::duration<double> seconds(std::strtod(arguments[4], nullptr));
  const auto begin = std::chrono::steady_clock::now();
  std::vector<float> logits(texts_per_call * columns);
  double fewest = 1e30, fewest_of_processor = 1e30;
  uint32_t sum = 0;
  do {
    const auto start = std::chrono::steady_clock::now();
    const double processor_start = processor_seconds();
    sum = 0;
    for (size_t first = 0; first < lines.texts.size(); first += texts_per_call) {
      const size_t count = std::min(texts_per_call, lines.texts.size() - first);
      if (dendritic_bert_classify(model, &lines.pointers[first], &lines.lengths[first], count, threads, logits.data()) <
          0) {
        std::fprintf(stderr, "driver: %s\n", dendritic_bert_error());
        return 1;
      }
      sum = mix(sum, logits, count * columns);
    }
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    fewest = std::min(fewest, took.count() / double(lines.texts.size()));
    fewest_of_processor =
        std::min(fewest_of_processor, (processor_seconds() - processor_start) * 1e6 / double(lines.texts.size()));
  } while (std::chrono::steady_clock::now() - begin < seconds);
  std::printf("%.6f %.6f %08x\n", fewest, fewest_of_processor, sum);
  dendritic_bert_close(model);
}
