// The types in which weights, activations and KV caches are stored. Arithmetic is in float32.
#pragma once
#include "portable.h"

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};
using f32 = float;

#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define PRAGMA(text) _Pragma(#text)
#define UNROLL_BY(count) PRAGMA(unroll count)
__device__ __forceinline__ float bitsToFloat(unsigned bits) { return __uint_as_float(bits); }
__device__ __forceinline__ unsigned floatToBits(float value) { return __float_as_uint(value); }
__device__ __forceinline__ float widen(f16 value) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
}
__device__ __forceinline__ void narrow(float value, f16& to) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
}
__device__ __forceinline__ void narrow(float value, bf16& to) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
}
#else
#define UNROLL
#define UNROLL_BY(count)
__device__ float bitsToFloat(unsigned bits) { return __builtin_bit_cast(float, bits); }
__device__ unsigned floatToBits(float value) { return __builtin_bit_cast(unsigned, value); }
__device__ float widen(f16 value) { return float(__builtin_bit_cast(_Float16, value.bits)); }
__device__ void narrow(float value, f16& to) { to.bits = __builtin_bit_cast(uint16_t, _Float16(value)); }
__device__ void narrow(float value, bf16& to) {
  const unsigned bits = floatToBits(value);
  const unsigned rounded = bits + 0x7fff + (bits >> 16 & 1);
  to.bits = uint16_t((value == value ? rounded : bits | 0x400000) >> 16);
}
#endif

__device__ __forceinline__ float widen(bf16 value) { return bitsToFloat(unsigned(value.bits) << 16); }
__device__ __forceinline__ float widen(f32 value) { return value; }
__device__ __forceinline__ void narrow(float value, f32& to) { to = value; }

/// Elements of 16 bytes, which is what a thread loads at once.
template <class T>
constexpr int vectorElements = 16 / int(sizeof(T));

__device__ __forceinline__ void unpackWord(unsigned word, float* to, bf16) {
  to[0] = bitsToFloat(word << 16);
  to[1] = bitsToFloat(word & 0xffff0000u);
}
__device__ __forceinline__ void unpackWord(unsigned word, float* to, f16) {
  to[0] = widen(f16{uint16_t(word)});
  to[1] = widen(f16{uint16_t(word >> 16)});
}
__device__ __forceinline__ void unpackWord(unsigned word, float* to, f32) { to[0] = bitsToFloat(word); }

/// The elements of a vector, widened.
template <class T>
__device__ __forceinline__ void unpack(const uint4& vector, float (&to)[vectorElements<T>]) {
  constexpr int perWord = 4 / int(sizeof(T));
  unpackWord(vector.x, to, T{});
  unpackWord(vector.y, to + perWord, T{});
  unpackWord(vector.z, to + 2 * perWord, T{});
  unpackWord(vector.w, to + 3 * perWord, T{});
}

/// Sum over the lanes of a warp, the same bits in each: an exchange with the lane 16, 8, 4, 2, 1 away.
__device__ __forceinline__ float sumOfWarp(float value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}
