// Small kernels for the race checker's own test, each with ways to break it: `broken` chooses one, 0 none.
// The test finds a kernel's ways by the names WITHOUT(number, ...) and BROKEN(number).
#include "ptx.h"

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

/// Two products [16 x 16] [16 x 8] in bfloat16 and in float16, whose tiles are used twice, and a transposed
/// matrix. out: [16][8] of each type, then the packed transposed matrix.
extern "C" __global__ void product(int broken, const int* in, int* out) {
  __shared__ __align__(16) unsigned short left[2][16][16], right[2][16][8];
  const int lane = threadIdx.x;
  float sums[2][4] = {};
  for (int turn = 0; turn < 2; turn++) {
    for (int i = lane; i < 16 * 16; i += 32) {
      const float value = float(in[turn * 256 + i] % 7 - 3);
      left[0][i / 16][i % 16] = (unsigned short)pack_bf16(value, 0);
      left[1][i / 16][i % 16] = (unsigned short)pack_f16(value, 0);
    }
    for (int i = lane; i < 16 * 8; i += 32) {
      const float value = float(in[turn * 128 + i] % 5 - 2);
      right[0][i / 8][i % 8] = (unsigned short)pack_bf16(value, 0);
      right[1][i / 8][i % 8] = (unsigned short)pack_f16(value, 0);
    }
    WITHOUT(21, __syncwarp());
    for (int type = 0; type < 2; type++) {
      unsigned a[4], b[2];
      ldmatrix_x4(a, &left[type][lane % 16][lane / 16 * 8]);
      ldmatrix_x2_trans(b, &right[type][lane % 16][0]);
      if (type == 0) mma_bf16(sums[0], a, b);
      else if (!BROKEN(23) || lane != 5) mma_f16(sums[1], a, b);
    }
    WITHOUT(22, __syncwarp());
  }
  for (int i = 0; i < 4; i++) {
    const int at = (lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2;
    out[at] = int(sums[0][i]);
    out[128 + at] = int(sums[1][i]);
  }
  out[256 + lane] = int(movmatrix(unsigned(2 * lane) | unsigned(2 * lane + 1) << 16));
}

/// One warp fills two slots in turn, another empties them: barriers 1 and 2 say full, 3 and 4 say empty.
extern "C" __global__ void relay(int broken, const int* in, int* out) {
  __shared__ int slots[2][32];
  const int lane = threadIdx.x % 32;
  int sum = 0;
  for (int i = 0; i < 6; i++) {
    const int slot = i % 2;
    if (threadIdx.x < 32) {
      if (i >= 2) WITHOUT(24, barrier_sync(3 + slot, 64));
      if (BROKEN(26)) barrier_arrive(1 + slot, 64);
      slots[slot][lane] = in[i * 32 + lane];
      if (!BROKEN(26)) barrier_arrive(1 + slot, 64);
    } else {
      WITHOUT(25, barrier_sync(1 + slot, 64));
      sum += slots[slot][lane ^ 1];
      if (i < 4) barrier_arrive(3 + slot, 64);
    }
  }
  if (threadIdx.x >= 32) out[lane] = sum;
}

/// A chain of programmatic launches: each adds to what the one before wrote.
extern "C" __global__ void chain(int broken, const int* in, int* out) {
  const int i = threadIdx.x;
  int before = 0;
  if (BROKEN(28)) before = out[i];
  if (BROKEN(29)) grid_launch();
  if (BROKEN(30)) out[64 + i] = i;
  WITHOUT(27, grid_wait());
  if (!BROKEN(28)) before = out[i];
  out[i] = before + in[i];
  grid_launch();
}
