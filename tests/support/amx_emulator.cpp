// Executes AMX's instructions in software, so that the kernels' own machine code runs on a processor without AMX. There
// each of them raises SIGILL; the handler decodes it, executes it on tiles in memory and goes on behind it. Loaded by
// LD_PRELOAD (amx_emulator.py), this library also answers the kernels' question whether they may use AMX.
// What an instruction does, and what it refuses, is as in Intel's Software Developer's Manual, volume 2.
#include <immintrin.h>
#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int num_tiles = 8, max_rows = 16, max_row_bytes = 64;

struct Tile {
  int rows = 0, row_bytes = 0;  // both 0 where it is not configured
  alignas(max_row_bytes) uint8_t data[max_rows][max_row_bytes] = {};
};

struct Tiles {
  bool are_configured = false;
  Tile tile[num_tiles];
};

// A library that is loaded at the start has its variables beside the thread's own ones, which a handler may read.
__attribute__((tls_model("initial-exec"))) thread_local Tiles tiles;

// As amx_emulator.py names them.
enum Kind { ldtilecfg, tilerelease, tilezero, tileloadd, tilestored, tdpbf16ps, tdpbusd, unknown };
std::atomic<int64_t> counts[unknown];

// What the processor answers with an exception.
void expect(bool is_so, const char* message) {
  if (is_so) return;
  std::fprintf(stderr, "AMX emulator: %s\n", message);
  std::abort();
}

Tile& configured(int number) {
  expect(tiles.are_configured && number < num_tiles && tiles.tile[number].rows > 0, "a tile that is not configured");
  return tiles.tile[number];
}

// An instruction after its three bytes of VEX, which have map 0F38 and 128 bits.
struct Instruction {
  int prefix, opcode;      // 0 none, 1 66, 2 F3, 3 F2
  int mod, reg, rm, vvvv;  // the numbers of tiles, where it names tiles
  bool has_sib;            // whether its address has an index, which tiles take for the stride
  uintptr_t base;          // the address without the index
  int64_t scaled_index;
  int length;
};

// The general registers by their numbers in an instruction.
constexpr int registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

template <class T>
T read(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

float bit_cast(uint32_t bits) { return read<float>(reinterpret_cast<const uint8_t*>(&bits)); }

// Reads the address behind ModRM, which `at` points to.
void decode_address(const uint8_t* at, const greg_t* gregs, bool extends_index, bool extends_base, Instruction& i) {
  const uint8_t* const start = at++;
  const auto value_of = [&](int number) { return int64_t(gregs[registers[number]]); };
  int base = i.rm;
  i.has_sib = i.rm == 4;
  i.scaled_index = 0;
  if (i.has_sib) {
    const int index = (*at >> 3 & 7) + 8 * extends_index;
    if (index != 4) i.scaled_index = value_of(index) * (int64_t(1) << (*at >> 6));  // number 4 is "no index"
    base = *at++ & 7;
  }
  const bool has_no_base = i.mod == 0 && base == 5, is_relative = has_no_base && !i.has_sib;
  int64_t address = has_no_base ? 0 : value_of(base + 8 * extends_base);
  const int displacement = i.mod == 1 ? 1 : i.mod == 2 || has_no_base ? 4 : 0;
  if (displacement == 1) address += read<int8_t>(at);
  if (displacement == 4) address += read<int32_t>(at);
  at += displacement;
  i.length += int(at - start);
  i.base = uintptr_t(address + (is_relative ? int64_t(gregs[REG_RIP]) + i.length : 0));
}

// Returns whether a VEX instruction of the map of AMX begins at `at`.
bool decode(const uint8_t* at, const greg_t* gregs, Instruction& i) {
  if (at[0] != 0xC4 || (at[1] & 0x1F) != 2 || (at[2] & 0x84) != 0) return false;
  const bool extends_reg = !(at[1] & 0x80), extends_index = !(at[1] & 0x40), extends_base = !(at[1] & 0x20);
  i.vvvv = ~at[2] >> 3 & 15;
  i.prefix = at[2] & 3;
  i.opcode = at[3];
  i.mod = at[4] >> 6;
  i.reg = (at[4] >> 3 & 7) + 8 * extends_reg;
  i.rm = at[4] & 7;
  i.length = 4;
  if (i.mod != 3) {
    decode_address(at + 4, gregs, extends_index, extends_base, i);
  } else {
    i.rm += 8 * extends_base;
    i.length = 5;
  }
  return true;
}

void configure(const uint8_t* from) {
  Tiles fresh;
  expect(from[0] == 1 && from[1] == 0, "a palette other than 1, or a start row");
  for (int i = 2; i < 16; ++i) expect(from[i] == 0, "a reserved byte of the configuration is not 0");
  for (int i = 0; i < 16; ++i) {
    const int row_bytes = read<uint16_t>(from + 16 + 2 * i), rows = from[48 + i];
    expect(i < num_tiles || (row_bytes == 0 && rows == 0), "a reserved byte of the configuration is not 0");
    expect(row_bytes <= max_row_bytes && rows <= max_rows && (row_bytes == 0) == (rows == 0), "the shape of a tile");
    if (i < num_tiles) fresh.tile[i].rows = rows, fresh.tile[i].row_bytes = row_bytes;
  }
  fresh.are_configured = true;
  tiles = fresh;
}

void load(Tile& tile, const Instruction& i) {
  std::memset(tile.data, 0, sizeof(tile.data));
  for (int r = 0; r < tile.rows; ++r)
    std::memcpy(tile.data[r], reinterpret_cast<const void*>(i.base + uintptr_t(r * i.scaled_index)), tile.row_bytes);
}

void store(const Tile& tile, const Instruction& i) {
  for (int r = 0; r < tile.rows; ++r)
    std::memcpy(reinterpret_cast<void*>(i.base + uintptr_t(r * i.scaled_index)), tile.data[r], tile.row_bytes);
}

float low_half(uint32_t pair) { return bit_cast(pair << 16); }
float high_half(uint32_t pair) { return bit_cast(pair & 0xFFFF0000u); }

void check_product(const Tile& sums, const Tile& x, const Tile& y) {
  expect(&sums != &x && &sums != &y && &x != &y, "one tile twice in a product");
  expect(sums.rows == x.rows && sums.row_bytes == y.row_bytes && x.row_bytes == 4 * y.rows, "the shapes of a product");
}

// The products of the first numbers of all pairs are added up, and those of the second ones, each in order; then these
// two, and then their sum to what is there. Denormals count as zero, before and after each step.
void multiply_bfloat16(Tile& sums, const Tile& x, const Tile& y) {
  check_product(sums, x, y);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x1F80 | 0x8040);  // no exceptions, nearest even, flush to zero, denormals are zeros
  const int columns = sums.row_bytes / 4;
  for (int m = 0; m < sums.rows; ++m) {
    float first[16] = {}, second[16] = {};
    for (int k = 0; k < y.rows; ++k) {
      const uint32_t pair = read<uint32_t>(x.data[m] + 4 * k);
      for (int n = 0; n < columns; ++n) {
        const uint32_t other = read<uint32_t>(y.data[k] + 4 * n);
        first[n] = __builtin_fmaf(low_half(pair), low_half(other), first[n]);
        second[n] = __builtin_fmaf(high_half(pair), high_half(other), second[n]);
      }
    }
    for (int n = 0; n < columns; ++n) {
      const float sum = read<float>(sums.data[m] + 4 * n) + (first[n] + second[n]);
      std::memcpy(sums.data[m] + 4 * n, &sum, sizeof(sum));
    }
  }
  _mm_setcsr(before);
}

// Bytes of x without a sign and of y with one. The sums wrap.
void multiply_int8(Tile& sums, const Tile& x, const Tile& y) {
  check_product(sums, x, y);
  const int columns = sums.row_bytes / 4;
  for (int m = 0; m < sums.rows; ++m)
    for (int k = 0; k < y.rows; ++k)
      for (int n = 0; n < columns; ++n) {
        uint32_t sum = read<uint32_t>(sums.data[m] + 4 * n);
        for (int i = 0; i < 4; ++i) sum += uint32_t(int(x.data[m][4 * k + i]) * int8_t(y.data[k][4 * n + i]));
        std::memcpy(sums.data[m] + 4 * n, &sum, sizeof(sum));
      }
}

Kind kind_of(const Instruction& i) {
  const bool names_tiles = i.mod == 3;
  switch (i.opcode << 4 | i.prefix) {
    case 0x490: return names_tiles ? tilerelease : ldtilecfg;
    case 0x493: return names_tiles ? tilezero : unknown;
    case 0x4B1:  // tileloaddt1, which differs in how it uses the caches
    case 0x4B3: return i.has_sib ? tileloadd : unknown;
    case 0x4B2: return i.has_sib ? tilestored : unknown;
    case 0x5C2: return names_tiles ? tdpbf16ps : unknown;
    case 0x5E1: return names_tiles ? tdpbusd : unknown;
    default: return unknown;
  }
}

// Returns false where it is none of the instructions of AMX.
bool execute(const Instruction& i) {
  const Kind kind = kind_of(i);
  if (kind == unknown) return false;
  switch (kind) {
    case ldtilecfg: configure(reinterpret_cast<const uint8_t*>(i.base + uintptr_t(i.scaled_index))); break;
    case tilerelease: tiles = Tiles(); break;
    case tilezero: std::memset(configured(i.reg).data, 0, sizeof(Tile::data)); break;
    case tileloadd: load(configured(i.reg), i); break;
    case tilestored: store(configured(i.reg), i); break;
    case tdpbf16ps: multiply_bfloat16(configured(i.reg), configured(i.rm), configured(i.vvvv)); break;
    default: multiply_int8(configured(i.reg), configured(i.rm), configured(i.vvvv));
  }
  ++counts[kind];
  return true;
}

void on_illegal_instruction(int, siginfo_t*, void* context) {
  greg_t* const gregs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Instruction i{};
  if (decode(reinterpret_cast<const uint8_t*>(gregs[REG_RIP]), gregs, i) && execute(i)) gregs[REG_RIP] += i.length;
  else signal(SIGILL, SIG_DFL);  // the instruction is tried again, and ends the process
}

struct Installed {
  Installed() {
    struct sigaction action = {};
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, nullptr);
  }
} installed;

}  // namespace

extern "C" bool dendritic_bert_may_use_amx() { return true; }

// How many instructions of a Kind were executed.
extern "C" int64_t executed_amx_instructions(int kind) { return counts[kind]; }
