// From rows to tiles: a block packs the rows that it was dealt into tiles of columns, one for each of its threads, as
// many whole rows at a time as fit. A row that is longer than a tile is cut into pieces, which overlap by what the
// windows see beyond the columns that a piece pools.
#pragma once

#include "tokens.cuh"

namespace dendritic_bert {

constexpr int most_tile_rows = 16;  // of a tile, and of a block
constexpr int part_columns = 32;    // columns that a warp pools at once; counted from the row's first valid token, so
                                    // that the order of a row's sums depends on the row alone

// A row from its first valid token to its last; those of [pool_begin, pool_end) are the block's to pool.
struct WindowRow {
  int64_t begin, length;  // in input_ids
  int64_t pool_begin, pool_end;
  bool bad;
};

// What is masked on either side of a row gives nothing to any window, so it takes no place in a tile. All lanes take
// part.
__device__ __forceinline__ WindowRow measure_row(const Tokens& tokens, int64_t row, int split, int splits) {
  const RowRange range = row_range(tokens, row);
  int64_t first = 0, end = range.bad ? 0 : range.length;
  if (tokens.mask) {
    first = range.length, end = 0;
    for (int64_t column = threadIdx.x % 32; column < range.length; column += 32) {
      if (!load_mask(tokens, range.begin + column)) continue;
      if (column < first) first = column;
      end = column + 1;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const int64_t other_first = __shfl_xor_sync(all_lanes, first, distance);
      const int64_t other_end = __shfl_xor_sync(all_lanes, end, distance);
      if (other_first < first) first = other_first;
      if (other_end > end) end = other_end;
    }
    if (end == 0) first = 0;
  }
  WindowRow result;
  result.begin = range.begin + first;
  result.length = end - first;
  result.pool_begin = result.length * split / splits / part_columns * part_columns;
  result.pool_end =
      split + 1 == splits ? result.length : result.length * (split + 1) / splits / part_columns * part_columns;
  result.bad = range.bad;
  return result;
}

// A row, or a piece of one, in a tile: its columns are the tile's [begin, end), of which [pool_begin, pool_end) are
// pooled.
struct Slot {
  int64_t first_token;  // in input_ids, at `begin`
  int begin, end, pool_begin, pool_end, first_part;
};

struct Tile {
  Slot slots[most_tile_rows];
  int first_row, num_slots, num_columns, num_parts;
  bool continues, is_finished;     // whether slot 0 goes on with its row, and whether every row ends in this tile
  int num_rows, next_row;          // of the block; with next_column, where the next tile begins
  int64_t next_column, block_row;  // block_row: of the batch, the block's first
};

// Takes the rows that follow the last tile; at the start, next_row and next_column are 0. One thread calls it.
__device__ __forceinline__ void fill_tile(const WindowRow* rows, int halo, int capacity, Tile& tile) {
  tile.first_row = tile.next_row;
  tile.num_slots = tile.num_columns = tile.num_parts = 0;
  tile.continues = tile.next_column > 0;
  tile.is_finished = true;
  while (tile.next_row < tile.num_rows) {
    const WindowRow& row = rows[tile.next_row];
    const int64_t from = tile.next_column > row.pool_begin ? tile.next_column : row.pool_begin;
    int64_t to = row.pool_end, begin = from, end = from;
    if (from < to) {
      begin = from > halo ? from - halo : 0;
      end = to + halo < row.length ? to + halo : row.length;
    }
    if (end - begin > capacity - tile.num_columns) {
      if (tile.num_slots > 0) return;  // the row begins the next tile
      to = from + (begin + capacity - halo - from) / part_columns * part_columns;
      end = to + halo;
      tile.is_finished = false;
    }
    Slot& slot = tile.slots[tile.num_slots++];
    slot.first_token = row.begin + begin;
    slot.begin = tile.num_columns;
    slot.end = slot.begin + int(end - begin);
    slot.pool_begin = slot.begin + int(from - begin);
    slot.pool_end = slot.begin + int(to - begin);
    slot.first_part = tile.num_parts;
    tile.num_columns = slot.end;
    tile.num_parts += (int(to - from) + part_columns - 1) / part_columns;
    if (!tile.is_finished) {
      tile.next_column = to;
      return;
    }
    ++tile.next_row;
    tile.next_column = 0;
  }
}

__device__ __forceinline__ int slot_of_column(const Tile& tile, int column) {
  int slot = 0;
  while (column >= tile.slots[slot].end) ++slot;
  return slot;
}

__device__ __forceinline__ int slot_of_part(const Tile& tile, int part) {
  int slot = tile.num_slots - 1;
  while (part < tile.slots[slot].first_part) --slot;
  return slot;
}

// The columns of a tile in shared memory.
struct Columns {
  int32_t* entry;    // of the tables, type * V + id; negative if the token is not valid
  uint32_t* bounds;  // of its row in the tile: where it begins, and where it ends in the upper half
  float* gate;       // 0 if the token is not valid
};

// Each thread loads the token of its column. Columns behind the last have no token and no row.
__device__ __forceinline__ void load_columns(const Tokens& tokens, const Tile& tile, WindowRow* rows,
                                             const Columns& columns) {
  const int column = work_out_here(threadIdx.x);
  int32_t entry = -1;
  uint32_t bounds = 0;
  if (column < tile.num_columns) {
    const int s = slot_of_column(tile, column);
    const Slot& slot = tile.slots[s];
    const int64_t token = slot.first_token + (column - slot.begin), id = tokens.ids[token];
    const int64_t type = tokens.token_types.data ? tokens.token_types[token] : 0;
    const bool in_tables = id >= 0 && id < tokens.vocab_size && type >= 0 && type < tokens.num_types;
    if (load_mask(tokens, token)) {
      if (in_tables) entry = int32_t(type * tokens.vocab_size + id);
      else rows[tile.first_row + s].bad = true;
    }
    bounds = uint32_t(slot.begin) | uint32_t(slot.end) << 16;
  }
  columns.entry[column] = entry;
  columns.bounds[column] = bounds;
}

}  // namespace dendritic_bert
