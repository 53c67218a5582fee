// Instructions of a whole warp on matrices: mma, ldmatrix, movmatrix. Like a shuffle they order no memory.
#include <cstring>

#include "cuda_emulation.h"
#include "emulator.h"
#include "ptx_emulation.h"

#define HERE __builtin_return_address(0)

using namespace emulator;

namespace {

/// All 32 lanes take part, or what happens is undefined.
template <class Bring>
std::shared_ptr<Meeting> meetWhole(const char* what, Place place, Bring bring) {
  auto meeting = meet(what, ~0u, place, bring);
  if (meeting->arrived != ~0u) refuse("a matrix instruction of a warp whose lanes did not all come", place);
  return meeting;
}

using Widen = float (*)(unsigned bits);
float widenBf16(unsigned bits) { return emulated_bits<float>(bits << 16); }
float widenF16(unsigned bits) { return float(emulated_bits<_Float16>(uint16_t(bits))); }

/// Two values of 16 bits, the first in the low half.
template <Widen widen>
void put(float* pair, unsigned packed) {
  pair[0] = widen(packed & 0xffff);
  pair[1] = widen(packed >> 16);
}

/// The fragments of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"). Sums run in order of k
/// in float; hardware sums in an order and precision of its own.
template <Widen widen>
void multiplyAdd(float* d, const unsigned* a, const unsigned* b, Place place) {
  const auto meeting = meetWhole(multiply, place, [a, b](Meeting& at, int lane) {
    if (at.operands == nullptr) at.operands = std::make_unique<Operands>();
    const int row = lane / 4, k = lane % 4 * 2;
    auto& [left, right] = *at.operands;
    put<widen>(&left[row][k], a[0]);
    put<widen>(&left[row + 8][k], a[1]);
    put<widen>(&left[row][k + 8], a[2]);
    put<widen>(&left[row + 8][k + 8], a[3]);
    put<widen>(&right[row][k], b[0]);
    put<widen>(&right[row][k + 8], b[1]);
  });
  const auto& [left, right] = *meeting->operands;
  const int lane = block.current % 32;
  for (int i = 0; i < 4; i++) {
    const float* x = left[lane / 4 + i / 2 * 8];
    const float* y = right[lane % 4 * 2 + i % 2];
    for (int k = 0; k < 16; k++) d[i] += x[k] * y[k];
  }
}

unsigned elementAt(uint64_t row, int column, Place place) {
  const uint64_t address = row + 2 * uint64_t(column);
  if (checker != nullptr) checker->read(address, 2, place);
  uint16_t value;
  std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

}  // namespace

void emulated_mma_bf16(float* d, const unsigned* a, const unsigned* b) {
  multiplyAdd<widenBf16>(d, a, b, HERE);
}
void emulated_mma_f16(float* d, const unsigned* a, const unsigned* b) {
  multiplyAdd<widenF16>(d, a, b, HERE);
}

/// Lane i names row i % 8 of matrix i / 8. Each lane reads what it is given, after all have come.
void emulated_ldmatrix(unsigned* result, const void* row, int matrices, int transposed) {
  const Place place = HERE;
  const auto meeting = meetWhole(loadMatrix, place, [row](Meeting& at, int lane) {
    at.values[lane] = uint64_t(row);
  });
  const int lane = block.current % 32;
  const int major = lane / 4, minor = lane % 4 * 2;
  for (int matrix = 0; matrix < matrices; matrix++) {
    const uint64_t* rows = meeting->values + matrix * 8;
    for (int i = 0; i < 8; i++) {
      if (rows[i] % 16 == 0 && inShared(rows[i]) && inShared(rows[i] + 15)) continue;
      return refuse("an ldmatrix of a row that is not 16 aligned bytes of shared memory", place);
    }
    unsigned pair[2];
    for (int i = 0; i < 2; i++) {
      pair[i] = transposed ? elementAt(rows[minor + i], major, place)
                           : elementAt(rows[major], minor + i, place);
    }
    result[matrix] = pair[0] | pair[1] << 16;
  }
}

/// Lane i has two elements of row i / 4, and gets two of column i / 4.
unsigned emulated_movmatrix(unsigned value) {
  const auto meeting = meetWhole(moveMatrix, HERE, [value](Meeting& at, int lane) {
    at.values[lane] = value;
  });
  const int lane = block.current % 32;
  const int column = lane / 4, row = lane % 4 * 2;
  auto element = [&](int of) {
    return unsigned(meeting->values[of * 4 + column / 2] >> (column % 2 * 16)) & 0xffff;
  };
  return element(row) | element(row + 1) << 16;
}
