// What a kernel of this project sees when g++ compiles it for the software device: the names of CUDA C++
// that the kernels use. Everything that only exists on a GPU is a function of emulator.cpp, which is not
// instrumented: each access that the race checker sees is then one of the kernel.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

using std::max;
using std::min;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

#define __global__
#define __device__ static inline
#define __forceinline__ __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__
#define __align__(bytes) __attribute__((aligned(bytes)))
/// Shared memory of a block: one block runs at a time.
#define __shared__ static __attribute__((section("emulated_shared")))

enum EmulatedAtomic { emulatedAdd, emulatedMin, emulatedMax, emulatedExchange, emulatedAddFloat };

extern "C" {
unsigned char* emulated_dynamic_shared();
void emulated_block_barrier();
void emulated_warp_barrier(unsigned mask);
/// Gives each lane of `mask` the value of its lane `from`. Orders no memory.
uint64_t emulated_exchange(unsigned mask, uint64_t value, int from);
unsigned emulated_ballot(unsigned mask, int predicate);
void emulated_fence(int deviceScope);
uint64_t emulated_atomic(int operation, void* address, unsigned bytes, uint64_t value);
uint64_t emulated_compare_exchange(void* address, unsigned bytes, uint64_t expected, uint64_t value);
void emulated_copy_async(void* shared, const void* global, size_t bytes, size_t zeroBytes);
void emulated_copy_commit();
void emulated_copy_wait(size_t pending);
}

// The barriers are macros and the rest always inline: the place that a report names is the kernel's own.
#define EMULATED static inline __attribute__((always_inline))
#define __syncthreads() emulated_block_barrier()
EMULATED void __syncwarp(unsigned mask = 0xffffffffu) { emulated_warp_barrier(mask); }
EMULATED void __threadfence() { emulated_fence(1); }
EMULATED void __threadfence_block() { emulated_fence(0); }

template <class To, class From>
EMULATED To emulated_bits(From from) {
  To to{};
  __builtin_memcpy(&to, &from, sizeof(To) < sizeof(From) ? sizeof(To) : sizeof(From));
  return to;
}
EMULATED int emulated_lane() {
  return int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
}
template <class T>
EMULATED T __shfl_sync(unsigned mask, T value, int lane) {
  return emulated_bits<T>(emulated_exchange(mask, emulated_bits<uint64_t>(value), lane & 31));
}
template <class T>
EMULATED T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return __shfl_sync(mask, value, emulated_lane() ^ lanes);
}
template <class T>
EMULATED T __shfl_down_sync(unsigned mask, T value, unsigned lanes) {
  const int from = emulated_lane() + int(lanes);
  return __shfl_sync(mask, value, from < 32 ? from : emulated_lane());
}
EMULATED unsigned __ballot_sync(unsigned mask, int predicate) {
  return emulated_ballot(mask, predicate);
}

template <class T>
EMULATED T atomicAdd(T* address, T value) {
  return emulated_bits<T>(
      emulated_atomic(emulatedAdd, address, sizeof(T), emulated_bits<uint64_t>(value)));
}
EMULATED float atomicAdd(float* address, float value) {
  return emulated_bits<float>(
      emulated_atomic(emulatedAddFloat, address, 4, emulated_bits<uint64_t>(value)));
}
/// Unsigned types only, as far as the kernels go.
template <class T>
EMULATED T atomicMin(T* address, T value) {
  static_assert(T(-1) > T(0));
  return T(emulated_atomic(emulatedMin, address, sizeof(T), value));
}
template <class T>
EMULATED T atomicMax(T* address, T value) {
  static_assert(T(-1) > T(0));
  return T(emulated_atomic(emulatedMax, address, sizeof(T), value));
}
template <class T>
EMULATED T atomicExch(T* address, T value) {
  return emulated_bits<T>(
      emulated_atomic(emulatedExchange, address, sizeof(T), emulated_bits<uint64_t>(value)));
}
template <class T>
EMULATED T atomicCAS(T* address, T expected, T value) {
  return emulated_bits<T>(emulated_compare_exchange(
      address, sizeof(T), emulated_bits<uint64_t>(expected), emulated_bits<uint64_t>(value)));
}

// cuda_pipeline_primitives.h: cp.async.
EMULATED void __pipeline_memcpy_async(void* shared, const void* global, size_t bytes,
                                      size_t zeroBytes = 0) {
  emulated_copy_async(shared, global, bytes, zeroBytes);
}
EMULATED void __pipeline_commit() { emulated_copy_commit(); }
EMULATED void __pipeline_wait_prior(size_t pending) { emulated_copy_wait(pending); }

EMULATED float __uint_as_float(unsigned bits) { return emulated_bits<float>(bits); }
EMULATED unsigned __float_as_uint(float value) { return emulated_bits<unsigned>(value); }
EMULATED float __int_as_float(int bits) { return emulated_bits<float>(bits); }
EMULATED int __float_as_int(float value) { return emulated_bits<int>(value); }
EMULATED float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
#define __expf(x) std::exp(x)  // the C library has a function of this name
EMULATED unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
EMULATED unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t both = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    result |= unsigned(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return result;
}
EMULATED uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return uint64_t(static_cast<unsigned __int128>(a) * b >> 64);
}
EMULATED float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// Nothing fuses them: the software device is built for processors whose baseline has no fused product.
EMULATED double __dadd_rn(double a, double b) { return a + b; }
EMULATED double __dmul_rn(double a, double b) { return a * b; }
EMULATED double __ddiv_rn(double a, double b) { return a / b; }
EMULATED float __fdividef(float a, float b) { return a / b; }
EMULATED int __popc(unsigned value) { return __builtin_popcount(value); }
EMULATED int __ffs(int value) { return __builtin_ffs(value); }
EMULATED int __clz(int value) { return value == 0 ? 32 : __builtin_clz(unsigned(value)); }
EMULATED int __clzll(long long value) { return value == 0 ? 64 : __builtin_clzll(uint64_t(value)); }
// Loads and stores that name a cache.
template <class T>
EMULATED T __ldg(const T* address) {
  return *address;
}
template <class T>
EMULATED T __ldcg(const T* address) {
  return *address;
}
template <class T>
EMULATED T __ldcs(const T* address) {
  return *address;
}
template <class T>
EMULATED void __stcg(T* address, T value) {
  *address = value;
}
template <class T>
EMULATED void __stcs(T* address, T value) {
  *address = value;
}
