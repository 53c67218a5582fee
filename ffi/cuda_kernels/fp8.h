// Numbers of 8 bits in the format e4m3: a sign, 4 bits of exponent, 3 of mantissa. The largest is 448; there is
// no infinity; 0x7f and 0xff are NaN. Compute capability 8.9 converts them by an instruction that the PTX of these
// kernels does not have: here it is done by moving bits, which is exact. Rows of them are multiples of 16.
#pragma once
#include "elements.h"

struct e4m3 {
  uint8_t bits;
};

__device__ __forceinline__ float widen(e4m3 value) {
  const unsigned sign = unsigned(value.bits & 0x80) << 24, magnitude = value.bits & 0x7f;
  if (magnitude == 0x7f) return bitsToFloat(sign | 0x7fc00000);
  // The exponent's bias is 7 here and 127 there. Subnormal numbers become subnormal ones.
  return bitsToFloat(sign | magnitude << 20) * 0x1p120f;
}

/// To the nearest, ties to even; to 448 if it is larger.
__device__ __forceinline__ void narrow(float value, e4m3& to) {
  const unsigned sign = floatToBits(value) >> 24 & 0x80;
  const float magnitude = fabsf(value);
  const unsigned bits = floatToBits(magnitude);
  // Below the smallest normal number, 2^-6, all are multiples of 2^-9, the last place of 2^14.
  const unsigned subnormal = floatToBits(magnitude + 0x1p14f) - floatToBits(0x1p14f);
  const unsigned normal = ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3);
  const unsigned code = magnitude != magnitude   ? 0x7f
                        : magnitude >= 448.0f    ? 0x7e
                        : magnitude >= 0x1p-6f   ? normal
                                                 : subnormal;
  to.bits = uint8_t(sign | code);
}

__device__ __forceinline__ void unpackWord(unsigned word, float* to, e4m3) {
UNROLL
  for (int i = 0; i < 4; i++) to[i] = widen(e4m3{uint8_t(word >> 8 * i)});
}

/// Rounds a number to the type of the cache, and gives it in that of the products.
template <class T>
__device__ __forceinline__ void roundInto(float value, T& cached, T& fresh) {
  narrow(value, cached);
  fresh = cached;
}
template <class T, class C>
__device__ __forceinline__ void roundInto(float value, C& cached, T& fresh) {
  narrow(value, cached);
  narrow(widen(cached), fresh);
}

/// A sum of weights of type W with its scale and bias, both in float32 [outputs]. Fused everywhere, so that no
/// compiler fuses it here and there.
template <class W>
__device__ __forceinline__ float finishSum(float sum, const float* scales, const float* bias, int output) {
  if constexpr (sizeof(W) == 1) return fmaf(sum, scales[output], bias == nullptr ? 0.0f : bias[output]);
  return bias == nullptr ? sum : sum + bias[output];
}
