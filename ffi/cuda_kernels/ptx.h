// Instructions of PTX that CUDA C++ has no plain name for, and their emulation on the CPU.
#pragma once
#include "portable.h"
#ifdef __CUDACC__

#define PTX_INLINE __device__ __forceinline__

PTX_INLINE unsigned shared_address(const void* at) { return unsigned(__cvta_generic_to_shared(at)); }

/// d[16 x 8] += a[16 x 16] b[16 x 8] by a warp, in the fragments of mma.m16n8k16: d[4], a[4], b[2].
PTX_INLINE void mma_bf16(float* d, const unsigned* a, const unsigned* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
PTX_INLINE void mma_f16(float* d, const unsigned* a, const unsigned* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Loads 8 x 8 matrices of 16-bit elements: lane i names row i % 8 of matrix i / 8, 16 aligned bytes.
PTX_INLINE void ldmatrix_x2(unsigned* r, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1},[%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
PTX_INLINE void ldmatrix_x4(unsigned* r, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
PTX_INLINE void ldmatrix_x2_trans(unsigned* r, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1},[%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
PTX_INLINE void ldmatrix_x4_trans(unsigned* r, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
/// Transposes an 8 x 8 matrix of 16-bit elements: lane i has two elements of row i / 4.
PTX_INLINE unsigned movmatrix(unsigned value) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(value));
  return result;
}

/// cp.async of 16 bytes, zeros if not `valid`. The second-level cache fetches 256 bytes at a time: use it
/// where memory is read in a stream.
PTX_INLINE void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::256B [%0],[%1],16,%2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}

/// A barrier of `threads` threads of the block, in whole warps; numbers 1 to 15.
PTX_INLINE void barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/// Counts at the barrier, and does not wait.
PTX_INLINE void barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Programmatic dependent launch: waits until the kernel before has ended and its writes are visible.
PTX_INLINE void grid_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Lets the next kernel begin once all blocks have called this or ended.
PTX_INLINE void grid_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

PTX_INLINE float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// The products of two pairs.
PTX_INLINE unsigned multiply_bf16x2(unsigned a, unsigned b) {
  unsigned result;  // compute capability 8.0 has only the fused product: -0 changes nothing
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(0x80008000u));
  return result;
}
PTX_INLINE unsigned multiply_f16x2(unsigned a, unsigned b) {
  unsigned result;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}

/// Two floats rounded to 16 bits, `low` in the low half.
PTX_INLINE unsigned pack_bf16(float low, float high) {
  unsigned result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
PTX_INLINE unsigned pack_f16(float low, float high) {
  unsigned result;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
/// The value of the low 16 bits.
PTX_INLINE float unpack_f16(unsigned bits) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"((unsigned short)bits));
  return result;
}

#undef PTX_INLINE
#else
#include "ptx_emulation.h"
#endif
