// The int8 window layers on AMX. One instruction adds to the sums of 16 tokens and 16 outputs the products of 64
// inputs: 64 channels of a tap, or the 32 channels of two taps. With 32 channels the inputs of a token are followed by
// those of the token that lies `dilation` columns further, so that three taps take two products. The weights are
// multiplied as they are: their sixteen fours of inputs, for sixteen outputs, are the rows of a tile.
#pragma once

#include "amx.h"

#ifdef DENDRITIC_BERT_AMX

#include <algorithm>
#include <cstdint>

#include "window_int8_layers.h"
#include "window_tiles_amx.h"

namespace dendritic_bert {
namespace {

// The products of a block of outputs. Tiles 0 and 1 are the sums of its two panels, 2 and 3 inputs, 4 to 7 weights.
struct AmxProducts {
  const uint8_t* in;     // [blocks, columns, 64]
  const int8_t* weight;  // [R, channels / 4, channels, 4], of the tap at offset 0
  int64_t channels, capacity, dilation_bytes;

  template <int tile>
  void load_weights(int64_t tap, int64_t first_input) const {
    const int8_t* of_inputs = weight + (tap * channels + first_input) * channels;
    load_tile<tile>(of_inputs, 4 * channels);
    load_tile<tile + 1>(of_inputs + 4 * panel, 4 * channels);
  }
};

// With 32 channels. Tiles 4 and 5 are the weights of two taps, that of offset 0 and one of its neighbours; 6 and 7,
// which are half as high, those of the next one, for which tile 3 is half as wide.
struct PairedTaps : AmxProducts {
  int64_t held_tap = 2;  // none

  explicit PairedTaps(const AmxProducts& products) : AmxProducts(products) { load_weights<6>(1, 0); }

  static Tiles tiles() {
    return Tiles(
        {{3, tile_rows, tile_row_bytes / 2}, {6, tile_rows / 2, tile_row_bytes}, {7, tile_rows / 2, tile_row_bytes}});
  }

  // Writes behind the inputs of each column those of the column that lies `dilation` further, zeros where that is
  // outside of the row.
  static void prepare_inputs(const Windows& shape, int64_t layer, const Strip& strip, uint8_t* in) {
    const int64_t dilation = Windows::power_of_2(layer);
    for (int64_t p = 0; p < strip.num_pieces; ++p) {
      const Piece& piece = strip.pieces[p];
      const Columns columns = columns_after(shape, piece, layer - 1);
      for (int64_t c = std::max(columns.begin, piece.start - amx_gap + dilation); c < columns.end; ++c)
        std::copy_n(in + c * tile_row_bytes, int8_block, in + (c - dilation) * tile_row_bytes + int8_block);
      for (int64_t c = std::max(piece.start, piece.start_of_gap() - dilation); c < piece.start_of_gap(); ++c)
        std::fill_n(in + c * tile_row_bytes + int8_block, int8_block, uint8_t(0));
    }
  }

  void add(const TokenTile& tokens) {
    const int64_t tap = tokens.has_tap(-1) ? -1 : 0;
    if (tap != held_tap) load_weights<4>(tap, 0);
    held_tap = tap;
    const uint8_t* of_tokens = in + tokens.column * tile_row_bytes;
    load_tile<2>(of_tokens + tap * dilation_bytes, tile_row_bytes);
    multiply_int8_tiles<0, 2, 4>();
    multiply_int8_tiles<1, 2, 5>();
    if (!tokens.has_tap(-1) || !tokens.has_tap(1)) return;
    load_tile<3>(of_tokens + dilation_bytes, tile_row_bytes);
    multiply_int8_tiles<0, 3, 6>();
    multiply_int8_tiles<1, 3, 7>();
  }
};

// With blocks of 64 channels.
struct SingleTaps : AmxProducts {
  explicit SingleTaps(const AmxProducts& products) : AmxProducts(products) {}
  static Tiles tiles() { return Tiles({}); }
  static void prepare_inputs(const Windows&, int64_t, const Strip&, uint8_t*) {}

  void add(const TokenTile& tokens) const {
    for (int64_t i = 0; i < channels; i += tile_row_bytes) {
      const uint8_t* of_tokens = in + i * capacity + tokens.column * tile_row_bytes;
      if (tokens.has_tap(-1)) add_tap<2, 4>(of_tokens, -1, i);
      add_tap<3, 6>(of_tokens, 0, i);
      if (tokens.has_tap(1)) add_tap<2, 4>(of_tokens, 1, i);
    }
  }

 private:
  template <int x, int y>
  void add_tap(const uint8_t* of_tokens, int64_t tap, int64_t first_input) const {
    load_weights<y>(tap, first_input);
    load_tile<x>(of_tokens + tap * dilation_bytes, tile_row_bytes);
    multiply_int8_tiles<0, x, y>();
    multiply_int8_tiles<1, x, y + 1>();
  }
};

template <class Products>
struct AmxInt8Layers {
  static constexpr int64_t least_gap = amx_gap;
  static constexpr ChannelOrder order = ChannelOrder::of_weights;
  struct Scratch {
    Tiles tiles = Products::tiles();
    explicit Scratch(const Int8Windows&) {}
  };

  // The inputs of a layer are [blocks, columns, 64], of which 32 channels are the first half.
  static int64_t input_bytes(int64_t channels) { return std::max<int64_t>(tile_row_bytes, channels); }
  static int64_t input_stride(int64_t) { return tile_row_bytes; }
  static uint8_t* inputs_of_block(uint8_t* in, int64_t capacity, int64_t o) {
    return in + o / tile_row_bytes * tile_row_bytes * capacity + o % tile_row_bytes;
  }
  static void clear_inputs(uint8_t* in, int64_t capacity, int64_t channels, int64_t begin, int64_t end) {
    for (int64_t o = 0; o < channels; o += tile_row_bytes)
      std::fill(in + o * capacity + begin * tile_row_bytes, in + o * capacity + end * tile_row_bytes, uint8_t(0));
  }

  // Layer j (1 <= j < J) of a strip: reads `in`, adds to u and, if another layer follows, writes its inputs, next_in.
  static void multiply(const Int8Windows& windows, int64_t layer, const Strip& strip, uint8_t* in, int16_t* u,
                       uint8_t* next_in, const Scratch&) {
    const Windows& shape = windows.shape;
    const int64_t channels = shape.channels, taps = 2 * shape.radius + 1;
    const bool is_last = layer + 1 == shape.num_layers;
    Products::prepare_inputs(shape, layer, strip, in);
    const int8_t* weight = windows.weight + ((layer - 1) * taps + shape.radius) * channels * channels;
    for (int64_t o = 0; o < channels; o += int8_block)
      multiply_outputs(
          windows, layer, o, strip,
          Products({in, weight + 4 * o, channels, strip.capacity, Windows::power_of_2(layer) * tile_row_bytes}),
          u + o * strip.capacity, is_last ? nullptr : inputs_of_block(next_in, strip.capacity, o));
  }

 private:
  // The outputs of a block, from o on.
  __attribute__((noinline)) static void multiply_outputs(const Int8Windows& windows, int64_t layer, int64_t o,
                                                         const Strip& strip, Products products, int16_t* u,
                                                         uint8_t* next_in) {
    const OutputVectors<2> output(int8_output(windows, layer, o));
    const int32_t* bias = windows.bias + layer * windows.shape.channels + o;
    for_token_tiles(windows.shape, layer, strip, [&](const TokenTile& tile) {
      load_tile<0>(bias, 0);
      load_tile<1>(bias + panel, 0);
      products.add(tile);
      alignas(tile_row_bytes) int32_t sums[2][tile_rows * panel];
      store_tile<0>(sums[0], tile_row_bytes);
      store_tile<1>(sums[1], tile_row_bytes);
      finish(output, sums, tile.tokens, u + tile.column * int8_block,
             next_in ? next_in + tile.column * tile_row_bytes : nullptr);
    });
  }

  // Adds the sums to u and writes the inputs of the next layer, two tokens at a time, or none where next_in is null.
  static void finish(const OutputVectors<2>& output, const int32_t (&sums)[2][tile_rows * panel], int64_t tokens,
                     int16_t* u, uint8_t* next_in) {
    const auto add_to_stream = [&](int64_t t) {
      const Int8Sums of_token[] = {load_sums(sums[0] + t * panel), load_sums(sums[1] + t * panel)};
      return output.add_to_stream(of_token, u + t * int8_block);
    };
    int64_t t = 0;
    for (; t + 2 <= tokens; t += 2) {
      const __m512i first = add_to_stream(t), second = add_to_stream(t + 1);
      if (!next_in) continue;
      const __m512i inputs = inputs_in_order(first, second, output.next_input_scale);
      _mm256_storeu_si256((__m256i*)(next_in + t * tile_row_bytes), _mm512_castsi512_si256(inputs));
      _mm256_storeu_si256((__m256i*)(next_in + (t + 1) * tile_row_bytes), _mm512_extracti64x4_epi64(inputs, 1));
    }
    if (t == tokens) return;
    const __m512i last = add_to_stream(t);
    if (next_in) store_inputs_in_order(last, output.next_input_scale, next_in + t * tile_row_bytes);
  }
};

}  // namespace
}  // namespace dendritic_bert

#endif
