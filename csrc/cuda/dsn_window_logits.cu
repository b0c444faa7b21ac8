// dsn_window_logits: token ids to logits in one launch for models with window layers, a gate or both. A block takes
// some rows and packs them into tiles of as many columns as it has threads (window_rows.cuh). In a tile, the layers
// turn the tables' entries into u (window_layers.cuh), and the gated sums of each row are added up
// (window_pooling.cuh); the head (head.cuh) turns those of the rows that end into logits. Nothing but the logits leaves
// the chip.
#include "head.cuh"
#include "launch.cuh"
#include "launchers.h"
#include "pooling.cuh"
#include "window_layers.cuh"
#include "window_pooling.cuh"

namespace dendritic_bert {

// The head's outputs of the tile's rows, before the dendrites.
template <bool four_at_once>
__device__ __forceinline__ void multiply_rows(const Windows& windows, const Head& head, int num_slots,
                                              const float* totals, int stride, float* z) {
  const int outputs = (1 + head.num_dendrites) * head.num_labels,
            first = work_out_here(windows.folded ? windows.num_values : 0);
#pragma unroll 1
  for (int r = 0; r < num_slots; r += head_rows) {
    const int rows = num_slots - r < head_rows ? num_slots - r : head_rows;
    const float* const pooled = totals + r * stride;
    multiply_head<four_at_once>(head, windows.columns() - first, pooled + first, stride, rows, z + r * outputs,
                                work_out_here(threadIdx.x), [&](int row, int output, float product) {
      return (windows.folded ? product + pooled[row * stride + output] : product) + head.bias[output];
    });
  }
}

// The logits of the rows that end in the tile.
__device__ __forceinline__ void finish_rows(const WindowArguments& arguments, const Tile& tile, const WindowRow* rows,
                                            float* totals, float* z) {
  const Windows& windows = arguments.windows;
  const int stride = arguments.tile.stride, num_columns = work_out_here(windows.columns());
  Plan plan = arguments.plan;
  Head head = arguments.head;
  plan.partial = work_out_here(plan.partial);
  head.weight = work_out_here(head.weight);
  head.num_labels = work_out_here(head.num_labels);
  const int thread = work_out_here(threadIdx.x), outputs = (1 + head.num_dendrites) * head.num_labels;
  if (thread < tile.num_slots && rows[tile.first_row + thread].bad) totals[thread * stride + num_columns] = NAN;
  __syncthreads();
  const BlockSums block{totals, nullptr, totals + num_columns, 1, 1, stride};
  if (!combine_splits(plan, block, num_columns)) return;
  for (int i = thread; i < tile.num_slots * num_columns; i += work_out_here(blockDim.x)) {
    float* const total = totals + i / num_columns * stride;
    total[i % num_columns] *= pooling_factors(Pooling::mean_masked, total[num_columns]).scale;
  }
  __syncthreads();
  if (windows.num_values % 4 == 0) multiply_rows<true>(windows, head, tile.num_slots, totals, stride, z);
  else multiply_rows<false>(windows, head, tile.num_slots, totals, stride, z);
  __syncthreads();
  float* const logits = arguments.logits + (tile.block_row + tile.first_row) * head.num_labels;
  for (int i = thread; i < tile.num_slots * head.num_labels; i += work_out_here(blockDim.x))
    logits[i] = apply_dendrites(head, i % head.num_labels, z + i / head.num_labels * outputs);
}

template <class Weight, int channels>
__global__ void __launch_bounds__(most_window_tile, 1) dsn_window_logits_kernel(const WindowArguments arguments) {
  DYNAMIC_SHARED(memory);
  __shared__ WindowRow rows[most_tile_rows];
  __shared__ Tile tile;
  constexpr int u_stride = channels ? column_stride<channels> : 0;
  const Windows& windows = arguments.windows;
  const WindowTile& place = arguments.tile;
  const Tokens& tokens = arguments.tokens;
  float* const shared = reinterpret_cast<float*>(memory);
  // No address lives longer than one step, since the window layers need the registers.
  const auto array = [&](int begin) { return shared + work_out_here(begin); };
  const auto columns = [&] {
    return Columns{reinterpret_cast<int32_t*>(array(place.entries)), reinterpret_cast<uint32_t*>(array(place.bounds)),
                   array(place.gates)};
  };

  const int64_t first_row = int64_t(blockIdx.x) * place.rows, rows_left = tokens.rows - first_row;
  const int num_rows = rows_left < place.rows ? int(rows_left) : place.rows;
#pragma unroll 1
  for (int r = threadIdx.x / 32; r < num_rows; r += blockDim.x / 32) {
    const WindowRow row = measure_row(tokens, first_row + r, blockIdx.y, arguments.plan.splits);
    if (threadIdx.x % 32 == 0) rows[r] = row;
  }
  if (threadIdx.x == 0) {
    tile.block_row = first_row;
    tile.num_rows = num_rows;
    tile.next_row = 0;
    tile.next_column = 0;
  }
  for (int i = threadIdx.x; i < u_stride; i += work_out_here(blockDim.x)) shared[i] = 0;  // in front of u

  do {
    __syncthreads();  // the rows are measured, and the last tile is done
    if (threadIdx.x == 0) fill_tile(rows, windows.halo(), place.columns, tile);
    __syncthreads();
    load_columns(tokens, tile, rows, columns());
    __syncthreads();
    if constexpr (channels > 0)
      window_layers<Weight, channels>(
          windows, columns(), tile.num_columns, array(place.u), reinterpret_cast<Weight*>(array(place.matrices)));
    compute_gates<channels>(windows, columns(), array(place.u), u_stride);
    __syncthreads();
    sum_parts<channels>(windows, tile, columns(), array(place.u), u_stride, array(place.parts), place.stride);
    __syncthreads();
    add_parts(tile, windows.columns() + 1, array(place.parts), place.stride, array(place.totals));
    __syncthreads();
    if (tile.is_finished) finish_rows(arguments, tile, rows, array(place.totals), array(place.u));
  } while (tile.next_row < tile.num_rows);
}

WindowTile place_tile(const Windows& windows, const Head& head, int columns, int rows) {
  const int column = windows.channels ? windows.channels + 8 : 0, z = rows * (1 + head.num_dendrites) * head.num_labels;
  const int rows_of_matrices = windows.num_layers > 1 ? windows.num_taps() * windows.channels : 0;
  WindowTile tile;
  tile.columns = columns;
  tile.rows = rows;
  tile.stride = (windows.columns() + 4) / 4 * 4;
  tile.u = column;  // behind the column of zeros; the outputs of the head take the place of u
  tile.matrices = tile.u + std::max(columns * column, (z + 3) / 4 * 4);
  tile.parts = tile.matrices + (windows.weight_type == WordType::bfloat16 ? rows_of_matrices * column / 2
                                                                          : rows_of_matrices * windows.channels);
  tile.totals = tile.parts + (rows + columns / part_columns) * tile.stride;
  tile.gates = tile.totals + rows * tile.stride;
  tile.entries = tile.gates + columns;
  tile.bounds = tile.entries + columns;
  tile.end = tile.bounds + columns;
  return tile;
}

// The tile of a launch: long enough for a row of average length and, where the batch keeps the device busy even so, so
// long that the matrices are staged for many columns; then of fewer rows, or shorter, until it fits in shared memory.
WindowTile plan_tile(const WindowArguments& arguments, const Launch& launch) {
  const Tokens& tokens = arguments.tokens;
  int device = 0, most_bytes = 0;
  launch.check(cudaGetDevice(&device));
  launch.check(cudaDeviceGetAttribute(&most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  most_bytes -= 2048;  // the kernel's static shared memory
  const int64_t average = std::max<int64_t>((tokens.total + tokens.rows - 1) / tokens.rows, 1);
  const int64_t shortest = shortest_window_tile(arguments.windows.halo(), part_columns);
  const int64_t least = std::max<int64_t>(shortest, tokens.total < 256 * enough_blocks ? least_window_tile : 256);
  int columns = int(std::clamp<int64_t>((average + 31) / 32 * 32, least, most_window_tile));
  int rows = tokens.rows < most_tile_rows * enough_blocks ? int(std::min<int64_t>(columns / average, most_tile_rows))
                                                          : most_tile_rows;
  if (rows == 0 || arguments.plan.splits > 1) rows = 1;
  while (true) {
    const WindowTile tile = place_tile(arguments.windows, arguments.head, columns, rows);
    if (int64_t(sizeof(float)) * tile.end <= most_bytes) return tile;
    if (rows > 1) rows = (rows + 1) / 2;
    else if (columns > shortest) columns -= 32;
    else return tile;  // the driver will say how much is too much
  }
}

// Calls `body` with the number of channels, a multiple of 16 up to `most`, as a constant.
template <int most, class Body>
void with_channels(int channels, const Body& body) {
  if constexpr (most > 0)
    if (channels < most) return with_channels<most - 16>(channels, body);
  body(std::integral_constant<int, most>{});
}

void launch_dsn_window_logits(WindowArguments arguments, void* stream) {
  const Tokens& tokens = arguments.tokens;
  const Windows& windows = arguments.windows;
  if (tokens.rows == 0) return;
  const Launch launch{"dsn_window_logits", tokens, windows.columns(), static_cast<cudaStream_t>(stream)};
  with_channels<most_window_channels>(windows.channels, [&](auto channels) {
    constexpr int M = decltype(channels)::value;
    const WindowTile tile = arguments.tile = plan_tile(arguments, launch);
    const auto start = [&](auto kernel) {
      launch(kernel, (tokens.rows + tile.rows - 1) / tile.rows, arguments.plan.splits, tile.columns,
             sizeof(float) * size_t(tile.end), arguments);
    };
    if constexpr (M > 0)
      if (windows.weight_type == WordType::bfloat16) return start(dsn_window_logits_kernel<__nv_bfloat16, M>);
    start(dsn_window_logits_kernel<float, M>);
  });
}

}  // namespace dendritic_bert
