// How a batch is dealt out to blocks, from shapes alone: nothing here waits for the device.
#pragma once

#include <algorithm>

#include "arguments.h"

constexpr int block_warps = 4;
constexpr int warp_channels = 1024;      // that the registers of a warp hold
constexpr int slice_channels = 512;      // of a warp where several hold a row between them, or loads are not aligned
constexpr int max_slices = 8;            // warps of a block, which leaves 255 registers a thread
constexpr int max_hidden_size = max_slices * slice_channels;
constexpr int64_t enough_blocks = 512;   // about 4 for each multiprocessor of the largest device
constexpr int64_t split_columns = 256;   // a split is not worth less

// Rows beyond a warp's registers are held by several warps.
inline int warps_of_block(int hidden_size) {
  return hidden_size > warp_channels ? (hidden_size + slice_channels - 1) / slice_channels : block_warps;
}

// The longest row there may be; a packed batch says no more without a synchronisation.
inline int64_t longest_row(const Tokens& tokens) {
  if (!tokens.cu_seqlens.data) return tokens.length;
  return tokens.positions.data ? tokens.total : std::min(tokens.total, tokens.num_positions);
}

inline Plan plan_rows(const Tokens& tokens, int hidden_size) {
  Plan plan;
  plan.warps_per_row = warps_of_block(hidden_size);
  const bool short_rows = tokens.total <= 32 * tokens.rows;
  if (hidden_size <= slice_channels && short_rows && tokens.rows >= block_warps * enough_blocks) plan.warps_per_row = 1;
  if (tokens.rows > 0 && tokens.rows < enough_blocks)
    plan.splits = int(std::clamp<int64_t>(longest_row(tokens) / split_columns, 1, (enough_blocks + tokens.rows - 1) / tokens.rows));
  return plan;
}

inline int rows_of_block(const Plan& plan, int hidden_size) { return warps_of_block(hidden_size) / plan.warps_per_row; }

// Floats of a split's partial sums, and all the partial sums of a launch.
inline int64_t partial_size(const Plan& plan, const Tokens& tokens, int hidden_size) {
  return plan.splits == 1 ? 0 : tokens.rows * plan.splits * (2 * int64_t(hidden_size) + 1);
}

constexpr int run_chunk = 32;  // tokens by id that a group of lanes sums up one after the other, in the backward
