// The texts of a call in UTF-8, wherever they lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dendritic_bert::engine {

// Views, or bytes one behind another with the places where each text begins and the last one ends, as Arrow has them.
struct Texts {
  size_t size = 0, num_bytes = 0;
  const std::string_view* views = nullptr;
  const char* bytes = nullptr;
  const int32_t* offsets = nullptr;
  const int64_t* large_offsets = nullptr;

  std::string_view operator[](size_t i) const {
    if (views) return views[i];
    if (offsets) return {bytes + offsets[i], size_t(offsets[i + 1] - offsets[i])};
    return {bytes + large_offsets[i], size_t(large_offsets[i + 1] - large_offsets[i])};
  }
};

}  // namespace dendritic_bert::engine
