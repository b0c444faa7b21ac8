// Which tokens and channels a warp works on. A block is four warps, or one for each 512 channels above 1,024. They
// share one row or, if rows are short and many, take one each; blockIdx.x counts the blocks of rows, blockIdx.y the
// splits of a long row where there are few rows (plan.h).
#pragma once

#include "plan.h"
#include "rows.cuh"

namespace dendritic_bert {

template <class S>
constexpr int max_warps = S::width == Width::any ? max_slices : block_warps;
template <class S>
constexpr int max_threads = 32 * max_warps<S>;

// The number of warps that hold one row between them: 1, or several for rows beyond the registers of a warp.
template <class S>
__host__ __device__ constexpr int slices_of(int hidden_size) {
  return S::width == Width::any ? (hidden_size + S::channels - 1) / S::channels : 1;
}

// Every column_step-th column of [first_column, end), with the channels from first_channel on. `slot` is the place of
// the warp's sums among those of the block.
struct WarpShare {
  RowRange range;
  int64_t row, first_column, end;
  int column_step, first_channel, slices, slot;
};

template <class S>
__device__ __forceinline__ WarpShare share_of_warp(const Tokens& tokens, const Plan& plan, int hidden_size) {
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32, warp_in_row = warp % plan.warps_per_row;
  WarpShare share;
  share.row = int64_t(blockIdx.x) * (warps / plan.warps_per_row) + warp / plan.warps_per_row;
  share.range = row_range(tokens, share.row);
  const int64_t length = share.range.length;
  share.slices = slices_of<S>(hidden_size);
  const bool sliced = share.slices > 1;
  share.first_channel = sliced ? warp_in_row * S::channels : 0;
  share.slot = sliced ? 0 : warp;
  // Neighbouring columns go to different warps, so that padding on the right leaves all of them the same work.
  share.column_step = sliced ? 1 : plan.warps_per_row;
  share.first_column = length * blockIdx.y / plan.splits + (sliced ? 0 : warp_in_row);
  share.end = length * (blockIdx.y + 1) / plan.splits;
  return share;
}

// Leaves out the columns before `first`, which an earlier row holds too.
__device__ __forceinline__ void start_at(int64_t first, WarpShare& share) {
  if (first <= share.first_column) return;
  const int64_t step = share.column_step;
  share.first_column += (first - share.first_column + step - 1) / step * step;
}

}  // namespace dendritic_bert
