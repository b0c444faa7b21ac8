// How a batch is dealt out to blocks, decided from shapes alone: nothing here waits for the device.
#pragma once

#include <algorithm>

#include "arguments.h"

namespace dendritic_bert {

constexpr int block_warps = 4;
constexpr int warp_channels = 1024;  // the channels that the registers of a warp hold
constexpr int slice_channels = 512;  // the same if several warps share a row, or if loads are not aligned
constexpr int max_slices = 8;        // warps in a block, which leaves 255 registers per thread
constexpr int max_hidden_size = max_slices * slice_channels;
constexpr int64_t enough_blocks = 512;  // about 4 for each multiprocessor of the largest device
constexpr int64_t split_columns = 256;  // at least; a shorter split is not worth a block
constexpr int64_t window_split_columns = 512;
constexpr int64_t shared_bytes_of_rows = 48 * 1024;  // of all rows of a block; a row that takes more has it alone
constexpr int segment_chunk = 32;  // sorted tokens that a group of lanes sums one after another, in the backward

// Several warps share a row that is beyond the registers of one.
inline int warps_of_block(int hidden_size) {
  return hidden_size > warp_channels ? (hidden_size + slice_channels - 1) / slice_channels : block_warps;
}

// The length that no row exceeds. For a packed batch nothing closer is known without a synchronisation.
inline int64_t longest_row(const Tokens& tokens) {
  if (!tokens.cu_seqlens.data) return tokens.length;
  return tokens.positions.data ? tokens.total : std::min(tokens.total, tokens.num_positions);
}

// `outputs` are those of a head, which lie beside a row's sums.
inline Plan plan_rows(const Tokens& tokens, int hidden_size, int64_t outputs = 0) {
  Plan plan;
  plan.warps_per_row = warps_of_block(hidden_size);
  const bool short_rows = tokens.total <= 32 * tokens.rows, many_rows = tokens.rows >= block_warps * enough_blocks;
  const bool rows_fit = block_warps * int64_t(sizeof(float)) * (hidden_size + outputs) <= shared_bytes_of_rows;
  if (hidden_size <= slice_channels && short_rows && many_rows && rows_fit) plan.warps_per_row = 1;
  if (tokens.rows > 0 && tokens.rows < enough_blocks) {
    const int64_t most = (enough_blocks + tokens.rows - 1) / tokens.rows;
    plan.splits = int(std::clamp<int64_t>(longest_row(tokens) / split_columns, 1, most));
  }
  return plan;
}

// The windows' kernel has a thread for each column of its tile. With at most 64 channels, 128 registers for each of 512
// threads hold the sums of 32 columns by the warp.
constexpr int most_window_channels = 64, least_window_tile = 128, most_window_tile = 512;

// The shortest tile that pools `part` columns between the columns that windows see on either side.
inline int64_t shortest_window_tile(int64_t halo, int64_t part) { return (2 * halo + 2 * part - 1) / part * part; }

// Rows of windows are split later than others, since each split computes what its windows see of its neighbours.
inline Plan plan_windows(const Tokens& tokens) {
  Plan plan;
  if (tokens.rows == 0 || tokens.rows >= enough_blocks) return plan;
  const int64_t average = tokens.total / tokens.rows, most = (enough_blocks + tokens.rows - 1) / tokens.rows;
  plan.splits = int(std::clamp<int64_t>(average / window_split_columns, 1, most));
  return plan;
}

inline int rows_of_block(const Plan& plan, int hidden_size) { return warps_of_block(hidden_size) / plan.warps_per_row; }

inline int64_t chunks_of(int64_t num_tokens) { return (num_tokens + segment_chunk - 1) / segment_chunk; }

// The number of floats that all splits of a launch leave for the last one to add up.
inline int64_t partial_size(const Plan& plan, const Tokens& tokens, int hidden_size) {
  return plan.splits == 1 ? 0 : tokens.rows * plan.splits * (2 * int64_t(hidden_size) + 1);
}

}  // namespace dendritic_bert
