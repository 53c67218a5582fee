// Small kernels for the race checker's own test, each with ways to break it: `broken` chooses one, 0 none.
// The test finds a kernel's ways by the names WITHOUT(number, ...) and BROKEN(number).
#include "portable.h"

#define WITHOUT(number, statement) \
  do {                             \
    if (broken != number) {        \
      statement;                   \
    }                              \
  } while (0)
#define BROKEN(number) (broken == number)

/// A tile that a warp hands from lane to lane: a shuffle happens to line the lanes up, and orders nothing.
extern "C" __global__ void warp_tile(int broken, const int* in, int* out) {
  __shared__ int tile[4][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int sum = in[threadIdx.x];
  for (int i = 0; i < 4; i++) {
    tile[warp][lane] = i + lane;
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    WITHOUT(1, __syncwarp());
    sum += tile[warp][(lane + 1) % 32];
    WITHOUT(2, __syncwarp());
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

/// Each half of a warp synchronizes alone.
extern "C" __global__ void half_warp(int broken, const int* in, int* out) {
  __shared__ int values[128];
  const int i = threadIdx.x, lane = i % 32;
  values[i] = in[i];
  __syncwarp(lane < 16 ? 0xffffu : 0xffff0000u);
  out[i] = BROKEN(3) ? values[i ^ 16] : values[i ^ 1];
}

/// The last block to finish sums what all blocks wrote. out: [blocks] partial sums, counter, sum.
extern "C" __global__ void last_block(int broken, const int* in, int* out) {
  __shared__ int last;
  int* counter = out + gridDim.x;
  if (threadIdx.x == 0) {
    out[blockIdx.x] = in[blockIdx.x];
    if (BROKEN(4)) __threadfence_block();
    else WITHOUT(5, __threadfence());
    last = atomicAdd(counter, 1) == int(gridDim.x) - 1;
    WITHOUT(6, __threadfence());
  }
  WITHOUT(7, __syncthreads());
  if (last && threadIdx.x == 1) {
    int sum = 0;
    for (unsigned block = 0; block < gridDim.x; block++) sum += out[block];
    counter[1] = sum;
  }
}

/// A flag in shared memory, which one thread waits for.
extern "C" __global__ void flag(int broken, const int* in, int* out) {
  __shared__ int data;
  __shared__ volatile int ready;
  if (threadIdx.x == 0) ready = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    data = in[0];
    WITHOUT(8, __threadfence_block());
    ready = 1;
  }
  if (threadIdx.x == 32) {
    while (ready == 0) {
    }
    WITHOUT(9, __threadfence_block());
    *out = data;
  }
}

/// A ring of three stages of cp.async that wraps twice; each lane reads what its neighbour copied.
extern "C" __global__ void stages(int broken, const int* in, int* out) {
  DYNAMIC_SHARED(int, ring);
  const int lane = threadIdx.x, depth = BROKEN(12) ? 2 : 3;
  int sum = 0;
  for (int k = 0; k < 2; k++) {
    __pipeline_memcpy_async(ring + (k * 32 + lane) * 4, in + (k * 32 + lane) * 4, 16);
    __pipeline_commit();
  }
  for (int k = 0; k < 6; k++) {
    WITHOUT(10, __pipeline_wait_prior(BROKEN(11) ? 2 : 1));
    WITHOUT(13, __syncwarp());
    const int next = k + 2;
    if (next < 6) {
      __pipeline_memcpy_async(ring + (next % depth * 32 + lane) * 4, in + (next * 32 + lane) * 4, 16);
    }
    WITHOUT(14, __pipeline_commit());
    sum += ring[(k % depth * 32 + (lane ^ 1)) * 4];
  }
  __pipeline_wait_prior(0);
  out[lane] = sum;
}

/// Half of the block does not come to a barrier.
extern "C" __global__ void diverge(int broken, const int* in, int* out) {
  __shared__ int values[64];
  values[threadIdx.x] = in[threadIdx.x];
  if (BROKEN(15) && threadIdx.x % 2 == 1) __syncwarp();
  __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

/// A read of what nobody wrote; a write beyond the dynamic shared memory; blocks that write one place.
extern "C" __global__ void misuse(int broken, const int* in, int* out) {
  __shared__ int values[64];
  if (!BROKEN(16)) values[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  const int value = values[threadIdx.x ^ 1];
  DYNAMIC_SHARED(int, dynamic);
  dynamic[threadIdx.x + (BROKEN(17) ? 1 : 0)] = value;
  out[BROKEN(18) ? threadIdx.x : blockIdx.x * blockDim.x + threadIdx.x] = value;
}

/// A block's sum, used twice: the second barrier keeps the second call from overwriting the first one's.
__device__ int sumOf(int broken, int value, int* ofWarp) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  if (threadIdx.x % 32 == 0) ofWarp[threadIdx.x / 32] = value;
  WITHOUT(19, __syncthreads());
  int sum = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; warp++) sum += ofWarp[warp];
  WITHOUT(20, __syncthreads());
  return sum;
}
extern "C" __global__ void twice(int broken, const int* in, int* out) {
  __shared__ int ofWarp[32];
  const int first = sumOf(broken, in[threadIdx.x], ofWarp);
  out[threadIdx.x] = first + sumOf(broken, 1, ofWarp);
}
