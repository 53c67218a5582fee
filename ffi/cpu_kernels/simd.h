/*
 * One vector type per instruction set, so that the kernels are written once: `vfloat` holds LANES
 * floats, and a panel row (16 values) is VECTORS of them. Fused multiply-adds are always explicit
 * (`vfma`), never left to the compiler: two instances of a kernel must round alike.
 */
#ifndef SIMD_H
#define SIMD_H

#include <stddef.h>
#include <stdint.h>

#if defined(__wasm__)
#include <wasm_simd128.h>
#define LANES 4
#elif defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 8
#elif defined(__aarch64__)
#include <arm_neon.h>
#define LANES 4
#else
#error "no kernels for this instruction set: AVX-512, AVX2, NEON and WASM SIMD are supported"
#endif

#define PANEL 16
#define VECTORS (PANEL / LANES)

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

typedef float vfloat __attribute__((vector_size(4 * LANES)));
typedef int32_t vint __attribute__((vector_size(4 * LANES)));
typedef uint32_t vuint __attribute__((vector_size(4 * LANES)));
typedef vfloat vfloat_unaligned __attribute__((aligned(1), may_alias));
typedef vuint vuint_unaligned __attribute__((aligned(1), may_alias));
typedef uint32_t uint32_unaligned __attribute__((aligned(1), may_alias));
typedef uint16_t uint16_unaligned __attribute__((aligned(1), may_alias));

/* Storage types of weights and of the KV cache; the same numbers as in library.ts. */
enum storage { FLOAT32 = 0, FLOAT16 = 1, BFLOAT16 = 2 };

INLINE size_t storage_bytes(enum storage type) { return type == FLOAT32 ? 4 : 2; }

INLINE vfloat load(const float *p) { return *(const vfloat_unaligned *)p; }
INLINE void store(float *p, vfloat v) { *(vfloat_unaligned *)p = v; }
INLINE vuint load_bits(const void *p) { return *(const vuint_unaligned *)p; }

#if LANES == 16
INLINE vfloat splat(float x) { return (vfloat)_mm512_set1_ps(x); }
INLINE vfloat vfma(vfloat a, vfloat b, vfloat c) {
  return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
INLINE vfloat vmax(vfloat a, vfloat b) { return (vfloat)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vfloat vmin(vfloat a, vfloat b) { return (vfloat)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vfloat vsqrt(vfloat a) { return (vfloat)_mm512_sqrt_ps((__m512)a); }
INLINE vfloat widen_f16(__m256i h) { return (vfloat)_mm512_cvtph_ps(h); }
INLINE vfloat widen_bf16(__m256i h) {
  return (vfloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
}
INLINE __m256i load_halves(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m256i join_halves(const void *low, const void *high) {
  return _mm256_set_m128i(_mm_loadu_si128((const __m128i *)high),
                          _mm_loadu_si128((const __m128i *)low));
}
INLINE vfloat join_floats(const float *low, const float *high) {
  return (vfloat)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)),
                                    _mm256_loadu_ps(high), 1);
}
#elif LANES == 8
INLINE vfloat splat(float x) { return (vfloat)_mm256_set1_ps(x); }
INLINE vfloat vfma(vfloat a, vfloat b, vfloat c) {
  return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
INLINE vfloat vmax(vfloat a, vfloat b) { return (vfloat)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vfloat vmin(vfloat a, vfloat b) { return (vfloat)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vfloat vsqrt(vfloat a) { return (vfloat)_mm256_sqrt_ps((__m256)a); }
INLINE vfloat widen_f16(__m128i h) { return (vfloat)_mm256_cvtph_ps(h); }
INLINE vfloat widen_bf16(__m128i h) {
  return (vfloat)_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
}
INLINE __m128i load_halves(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
#elif defined(__wasm__)
INLINE vfloat splat(float x) { return (vfloat)wasm_f32x4_splat(x); }
/* Relaxed: fused if the processor has FMA, and always the same on one processor. */
INLINE vfloat vfma(vfloat a, vfloat b, vfloat c) {
  return (vfloat)wasm_f32x4_relaxed_madd((v128_t)a, (v128_t)b, (v128_t)c);
}
INLINE vfloat vmax(vfloat a, vfloat b) { return (vfloat)wasm_f32x4_pmax((v128_t)a, (v128_t)b); }
INLINE vfloat vmin(vfloat a, vfloat b) { return (vfloat)wasm_f32x4_pmin((v128_t)a, (v128_t)b); }
INLINE vfloat vsqrt(vfloat a) { return (vfloat)wasm_f32x4_sqrt((v128_t)a); }
INLINE v128_t load_halves(const void *p) { return wasm_u32x4_load16x4(p); }
INLINE vfloat widen_bf16(v128_t h) { return (vfloat)wasm_i32x4_shl(h, 16); }
/* Exponent and fraction moved to their float32 places, then rebased by 2^112: exact, subnormals
 * included; infinity and NaN get their exponent back. */
INLINE vfloat widen_f16(v128_t h) {
  v128_t magnitude = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x7fff)), 13);
  v128_t sign = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x8000)), 16);
  v128_t special = wasm_i32x4_gt(magnitude, wasm_i32x4_splat(0x0f7fffff));
  v128_t value = wasm_f32x4_mul(magnitude, wasm_f32x4_splat(0x1p112f));
  value = wasm_v128_or(value, wasm_v128_and(special, wasm_i32x4_splat(0x7f800000)));
  return (vfloat)wasm_v128_or(value, sign);
}
#else /* NEON */
INLINE vfloat splat(float x) { return (vfloat)vdupq_n_f32(x); }
INLINE vfloat vfma(vfloat a, vfloat b, vfloat c) {
  return (vfloat)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INLINE vfloat vmax(vfloat a, vfloat b) {
  return (vfloat)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
}
INLINE vfloat vmin(vfloat a, vfloat b) {
  return (vfloat)vminq_f32((float32x4_t)a, (float32x4_t)b);
}
INLINE vfloat vsqrt(vfloat a) { return (vfloat)vsqrtq_f32((float32x4_t)a); }
INLINE uint16x4_t load_halves(const void *p) { return vld1_u16((const uint16_t *)p); }
INLINE vfloat widen_f16(uint16x4_t h) { return (vfloat)vcvt_f32_f16(vreinterpret_f16_u16(h)); }
INLINE vfloat widen_bf16(uint16x4_t h) { return (vfloat)vshll_n_u16(h, 16); }
#endif

/* LANES stored values as floats. */
INLINE vfloat load_as_float(enum storage type, const void *p) {
  if (type == FLOAT32) return load((const float *)p);
  if (type == FLOAT16) return widen_f16(load_halves(p));
  return widen_bf16(load_halves(p));
}

/* 16 stored values, eight from `low` and eight from `high`, as floats. */
INLINE void load_two_eights(enum storage type, const char *low, const char *high,
                            vfloat out[VECTORS]) {
#if LANES == 16
  if (type == FLOAT32) {
    out[0] = join_floats((const float *)low, (const float *)high);
  } else {
    __m256i halves = join_halves(low, high);
    out[0] = type == FLOAT16 ? widen_f16(halves) : widen_bf16(halves);
  }
#else
  UNROLL for (int v = 0; v < VECTORS / 2; v++) {
    out[v] = load_as_float(type, low + v * LANES * storage_bytes(type));
    out[v + VECTORS / 2] = load_as_float(type, high + v * LANES * storage_bytes(type));
  }
#endif
}

INLINE float sum_lanes(vfloat v) {
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}

INLINE float max_lanes(vfloat v) {
  float max = v[0];
  for (int i = 1; i < LANES; i++) max = v[i] > max ? v[i] : max;
  return max;
}

/*
 * e^x within 2 ulp for x in [-87, 88]; smaller arguments give about 1e-38, larger about 1e38. The
 * polynomial is that of Cephes' expf. `shifted` holds round(x / ln 2) in its low bits.
 */
INLINE vfloat vexp(vfloat x) {
  x = vmin(vmax(x, splat(-87.0f)), splat(88.0f));
  const vfloat magic = splat(0x1.8p23f);
  vfloat shifted = vfma(x, splat(1.44269504088896341f), magic);
  vfloat n = shifted - magic;
  vfloat r = vfma(n, splat(-0.693359375f), x);
  r = vfma(n, splat(2.12194440e-4f), r);
  vfloat p = splat(1.9875691500e-4f);
  p = vfma(p, r, splat(1.3981999507e-3f));
  p = vfma(p, r, splat(8.3334519073e-3f));
  p = vfma(p, r, splat(4.1665795894e-2f));
  p = vfma(p, r, splat(1.6666665459e-1f));
  p = vfma(p, r, splat(5.0000001201e-1f));
  p = vfma(p, r * r, r) + splat(1.0f);
  return (vfloat)((vint)p + ((vint)shifted << 23));
}

/* x += y. */
INLINE void add_to(float *x, const float *y, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(x + i, load(x + i) + load(y + i));
  for (; i < count; i++) x[i] += y[i];
}

INLINE uint32_t float_bits(float x) {
  union { float f; uint32_t u; } bits = {.f = x};
  return bits.u;
}

INLINE float bits_float(uint32_t x) {
  union { uint32_t u; float f; } bits = {.u = x};
  return bits.f;
}

INLINE float bf16_to_float(uint16_t h) { return bits_float((uint32_t)h << 16); }

/* Round to nearest even; NaN stays NaN. */
INLINE uint16_t float_to_bf16(float x) {
  uint32_t bits = float_bits(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)((bits >> 16) | 0x40);
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE vuint round_to_bf16_bits(vfloat x) {
  vuint bits = (vuint)x;
  return bits + 0x7fff + ((bits >> 16) & 1);
}

/* x rounded to the nearest bfloat16, as floats. */
INLINE vfloat round_to_bf16(vfloat x) { return (vfloat)(round_to_bf16_bits(x) & 0xffff0000u); }

/* Round to nearest even, with subnormals and overflow to infinity. */
INLINE uint16_t float_to_f16(float x) {
  uint32_t bits = float_bits(x), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (magnitude < 0x38800000) { /* subnormal: let the float addition round */
    float aligned = bits_float(magnitude) + 0.5f;
    return (uint16_t)(sign | (float_bits(aligned) - 0x3f000000));
  }
  uint32_t rebased = magnitude - 0x38000000;
  return (uint16_t)(sign | ((rebased + 0xfff + ((rebased >> 13) & 1)) >> 13));
}

INLINE float f16_to_float(uint16_t h) {
  uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
  uint32_t value = float_bits(bits_float(magnitude) * 0x1p112f);
  if (magnitude > 0x0f7fffff) value |= 0x7f800000;
  return bits_float(value | sign);
}

INLINE float stored_to_float(enum storage type, const void *base, size_t index) {
  if (type == FLOAT32) return ((const float *)base)[index];
  uint16_t half = ((const uint16_t *)base)[index];
  return type == FLOAT16 ? f16_to_float(half) : bf16_to_float(half);
}

INLINE void store_from_float(enum storage type, void *base, size_t index, float x) {
  if (type == FLOAT32) ((float *)base)[index] = x;
  else ((uint16_t *)base)[index] = type == FLOAT16 ? float_to_f16(x) : float_to_bf16(x);
}

#endif
