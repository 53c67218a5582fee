// What ffi/cuda_kernels/ptx.h names, on the CPU.
#pragma once
#include "cuda_emulation.h"

extern "C" {
void emulated_mma_bf16(float* d, const unsigned* a, const unsigned* b);
void emulated_mma_f16(float* d, const unsigned* a, const unsigned* b);
void emulated_ldmatrix(unsigned* result, const void* row, int matrices, int transposed);
unsigned emulated_movmatrix(unsigned value);
void emulated_named_barrier(int id, int threads, int wait);
void emulated_grid_wait();
void emulated_grid_launch();
}

EMULATED void mma_bf16(float* d, const unsigned* a, const unsigned* b) { emulated_mma_bf16(d, a, b); }
EMULATED void mma_f16(float* d, const unsigned* a, const unsigned* b) { emulated_mma_f16(d, a, b); }
EMULATED void ldmatrix_x2(unsigned* r, const void* row) { emulated_ldmatrix(r, row, 2, 0); }
EMULATED void ldmatrix_x4(unsigned* r, const void* row) { emulated_ldmatrix(r, row, 4, 0); }
EMULATED void ldmatrix_x2_trans(unsigned* r, const void* row) { emulated_ldmatrix(r, row, 2, 1); }
EMULATED void ldmatrix_x4_trans(unsigned* r, const void* row) { emulated_ldmatrix(r, row, 4, 1); }
EMULATED unsigned movmatrix(unsigned value) { return emulated_movmatrix(value); }

EMULATED void copy_async_16(void* shared, const void* global, bool valid) {
  emulated_copy_async(shared, global, 16, valid ? 0 : 16);
}
EMULATED void barrier_sync(int id, int threads) { emulated_named_barrier(id, threads, 1); }
EMULATED void barrier_arrive(int id, int threads) { emulated_named_barrier(id, threads, 0); }
EMULATED void grid_wait() { emulated_grid_wait(); }
EMULATED void grid_launch() { emulated_grid_launch(); }

/// Hardware is exact to two units in the last place, and flushes subnormal numbers.
EMULATED float exp2_approx(float x) { return std::exp2(x); }

EMULATED unsigned emulated_bf16(float value) {
  const unsigned bits = emulated_bits<unsigned>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
EMULATED unsigned pack_bf16(float low, float high) {
  return emulated_bf16(low) | emulated_bf16(high) << 16;
}
EMULATED unsigned pack_f16(float low, float high) {
  return emulated_bits<uint16_t>(_Float16(low)) | unsigned(emulated_bits<uint16_t>(_Float16(high))) << 16;
}
/// The value of the low 16 bits.
EMULATED float unpack_f16(unsigned bits) {
  return float(emulated_bits<_Float16>(uint16_t(bits)));
}
EMULATED unsigned multiply_bf16x2(unsigned a, unsigned b) {
  const auto high = [](unsigned bits) { return emulated_bits<float>(bits & 0xffff0000u); };
  return pack_bf16(high(a << 16) * high(b << 16), high(a) * high(b));
}
EMULATED unsigned multiply_f16x2(unsigned a, unsigned b) {
  return pack_f16(unpack_f16(a) * unpack_f16(b), unpack_f16(a >> 16) * unpack_f16(b >> 16));
}
