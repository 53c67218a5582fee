// What is computed of a row of activations by itself, in an order of sums that all kernels share.
#pragma once
#include "elements.h"

constexpr int threadsOfRow = 256, warpsOfRow = threadsOfRow / 32;

/// A thread's share of a row's sum of squares: four elements of every 1024. `width` is a multiple of 4.
/// The loads pass by the first-level cache, which may hold what the row was before.
__device__ __forceinline__ float squaresOfThread(const float* row, int width) {
  float squares = 0;
  for (int i = 4 * int(threadIdx.x); i < width; i += 4 * threadsOfRow) {
    const float4 x = __ldcg(reinterpret_cast<const float4*>(row + i));
    squares = fmaf(x.x, x.x, fmaf(x.y, x.y, fmaf(x.z, x.z, fmaf(x.w, x.w, squares))));
  }
  return squares;
}

/// 1 / sqrt(mean of the squares + epsilon), of sums over warps by `sumOfWarp`, which are added in order.
__device__ __forceinline__ float scaleOfRow(const float* sumsOfWarps, int width, float epsilon) {
  float squares = sumsOfWarps[0];
  for (int warp = 1; warp < warpsOfRow; warp++) squares += sumsOfWarps[warp];
  return 1.0f / sqrtf(squares / float(width) + epsilon);
}

/// The element of a row after its norm.
__device__ __forceinline__ float normed(float value, float scale, float weight) { return value * scale * weight; }

__device__ __forceinline__ float siluTimes(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }
