// The instructions of AMX that the window layers use (window_layers_amx.h). A tile is a register of 16 rows of 64
// bytes, of which there are eight. The instructions are written out, because GCC's intrinsics do not say that they read
// memory, and take the number of a tile as a token of the preprocessor alone.
#pragma once

// Whether the assembler knows them: that of GCC 11 and of clang 11 does. Linux has to be asked for the tiles.
#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) ? __clang_major__ : __GNUC__) >= 11
#define DENDRITIC_BERT_AMX 1

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace dendritic_bert {
namespace {

constexpr int tile_rows = 16, tile_row_bytes = 64;

struct TileShape {
  int tile, rows, row_bytes;
};

// While it lives, the calling thread has eight tiles, of full size but for the smaller ones.
struct Tiles {
  explicit Tiles(std::initializer_list<TileShape> smaller = {}) {
    Configuration configuration;
    std::fill_n(configuration.row_bytes, 8, uint16_t(tile_row_bytes));
    std::fill_n(configuration.rows, 8, uint8_t(tile_rows));
    for (const TileShape& shape : smaller) {
      configuration.row_bytes[shape.tile] = uint16_t(shape.row_bytes);
      configuration.rows[shape.tile] = uint8_t(shape.rows);
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(configuration));
  }
  ~Tiles() { __asm__ volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  struct Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  static_assert(sizeof(Configuration) == 64, "as the processor reads it");
};

// Row r of a tile lies at address + r * stride, in bytes.
template <int tile>
inline void load_tile(const void* address, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(address), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
inline void store_tile(void* address, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(address), "r"(stride), "i"(tile) : "memory");
}

// sums[r][c] += x[r][i] * y[i / 2][c][i % 2] for i from 0 to 31: sums are float32, x and y bfloat16.
template <int sums, int x, int y>
inline void multiply_bfloat16_tiles() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(x), "i"(y));
}

// sums[r][c] += x[r][i] * y[i / 4][c][i % 4] for i from 0 to 63, or to 31 where rows of x are half as long and y has
// half as many: sums are int32, x uint8 and y int8.
template <int sums, int x, int y>
inline void multiply_int8_tiles() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(x), "i"(y));
}

}  // namespace
}  // namespace dendritic_bert

#endif
