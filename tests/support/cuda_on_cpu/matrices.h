// Products of matrices by a warp, with the fragments that the PTX manual describes: mma.sync.m16n8k16 of bfloat16 with
// sums in float32, and ldmatrix.x4.trans of 16-bit values. Every product is exact and every sum is rounded to nearest;
// a tensor core adds in an order, and with a rounding, of its own.
#pragma once

#include "narrow_types.h"

namespace cuda_on_cpu {

inline float half_of_pair(uint32_t pair, unsigned i) { return __uint_as_float(i ? pair & 0xffff0000u : pair << 16); }

struct Product : Collective {
  float sum[4];
  uint32_t a[4], b[2];
};

// sum [16, 8] += A [16, 16] B [16, 8]
inline void compute_products(Collective* const* lanes) {
  float a[16][16], b[16][8];
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    const Product& own = *static_cast<const Product*>(lanes[lane]);
    const unsigned group = lane / 4, pair = 2 * (lane % 4);
    for (unsigned i = 0; i < 2; ++i) {
      for (unsigned r = 0; r < 4; ++r) a[group + r % 2 * 8][pair + r / 2 * 8 + i] = half_of_pair(own.a[r], i);
      for (unsigned r = 0; r < 2; ++r) b[pair + r * 8 + i][group] = half_of_pair(own.b[r], i);
    }
  }
  for (unsigned lane = 0; lane < warp_size; ++lane)
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned row = lane / 4 + r / 2 * 8, column = 2 * (lane % 4) + r % 2;
      float& sum = static_cast<Product*>(lanes[lane])->sum[r];
      for (unsigned k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
    }
}

__attribute__((always_inline)) inline void multiply_matrices(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                                             uint32_t b1, CUDA_ON_CPU_PLACE) {
  Product own{{compute_products}, {sum[0], sum[1], sum[2], sum[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  warp_collective(own, {file, line});
  for (unsigned i = 0; i < 4; ++i) sum[i] = own.sum[i];
}

// Lane i passes the address of row i % 8 of matrix i / 8, and is given of every matrix the values of two rows in one
// column.
struct MatrixLoad : Collective {
  const uint16_t* row;
  uint32_t result[4];
};

inline void compute_loads(Collective* const* lanes) {
  for (unsigned lane = 0; lane < warp_size; ++lane)
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
      const auto at = [&](unsigned row) {
        return uint32_t(static_cast<const MatrixLoad*>(lanes[8 * matrix + row])->row[lane / 4]);
      };
      static_cast<MatrixLoad*>(lanes[lane])->result[matrix] = at(2 * (lane % 4)) | at(2 * (lane % 4) + 1) << 16;
    }
}

__attribute__((always_inline)) inline void load_matrices(uint32_t (&b)[4], const __nv_bfloat16* row,
                                                         CUDA_ON_CPU_PLACE) {
  if (reinterpret_cast<uintptr_t>(row) % 16) fail_misaligned(16);
  MatrixLoad own{{compute_loads}, &row->bits, {}};
  warp_collective(own, {file, line});
  for (unsigned i = 0; i < 4; ++i) b[i] = own.result[i];
}

}  // namespace cuda_on_cpu
