// Kernels that move and check KV blocks.
//
// A run is a stretch of bytes that is contiguous at both ends. Tables of addresses and sizes lie in
// memory that the device can read (device or pinned). All addresses and sizes are multiples of 16.
#include "portable.h"

namespace {

/// One 32-bit word of a block's pattern. The key names the block's contents (sequence and position); the
/// finalizer of MurmurHash3 makes words of neighbouring keys and places differ in half of their bits.
__device__ unsigned patternWord(unsigned long long key, unsigned word) {
  unsigned h = unsigned(key) ^ (unsigned(key >> 32) * 0x9e3779b9u) ^ (word * 0x85ebca6bu);
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

__device__ uint4 patternVector(unsigned long long key, unsigned vector) {
  const unsigned word = vector * 4;
  return make_uint4(patternWord(key, word), patternWord(key, word + 1), patternWord(key, word + 2),
                    patternWord(key, word + 3));
}

/// 16-byte vectors that each thread has in flight: 4 x 16 bytes x 1024 threads fill a multiprocessor's
/// share of the memory's latency.
constexpr int vectorsInFlight = 4;

}  // namespace

/// Copies runs between any two places that the device reaches: gather, scatter, or both. For runs of up
/// to 64 KiB, where a copy engine's start costs more than the copy, and for drivers without batched
/// copies. Grid [runs, parts]: parts share a run; block [threads].
extern "C" __global__ void __launch_bounds__(1024)
    kv_copy(const unsigned long long* __restrict__ destinations,
            const unsigned long long* __restrict__ sources, const unsigned* __restrict__ byteLengths,
            unsigned runs) {
  const unsigned run = blockIdx.x;
  if (run >= runs) return;
  const uint4* from = reinterpret_cast<const uint4*>(sources[run]);
  uint4* to = reinterpret_cast<uint4*>(destinations[run]);
  const unsigned vectors = byteLengths[run] / 16;
  const unsigned stride = blockDim.x * gridDim.y;
  unsigned at = blockIdx.y * blockDim.x + threadIdx.x;
  for (; at + (vectorsInFlight - 1) * stride < vectors; at += vectorsInFlight * stride) {
    uint4 held[vectorsInFlight];
    for (int i = 0; i < vectorsInFlight; i++) held[i] = from[at + i * stride];
    for (int i = 0; i < vectorsInFlight; i++) to[at + i * stride] = held[i];
  }
  for (; at < vectors; at += stride) to[at] = from[at];
}

/// Fills each block with the pattern of its key. Grid [blocks, parts].
extern "C" __global__ void __launch_bounds__(1024)
    kv_fill(const unsigned long long* __restrict__ blocks, const unsigned long long* __restrict__ keys,
            unsigned byteLength, unsigned count) {
  const unsigned block = blockIdx.x;
  if (block >= count) return;
  uint4* to = reinterpret_cast<uint4*>(blocks[block]);
  const unsigned long long key = keys[block];
  for (unsigned at = blockIdx.y * blockDim.x + threadIdx.x; at < byteLength / 16;
       at += blockDim.x * gridDim.y) {
    to[at] = patternVector(key, at);
  }
}

/// Counts the 16-byte vectors of each block that differ from the pattern of its key, and finds the
/// first. `wrong[block]` and `first[block]` are set by the caller to 0 and 0xffffffff; parts of a block
/// add to them. Grid [blocks, parts]; block of a multiple of 32 threads.
extern "C" __global__ void __launch_bounds__(1024)
    kv_check(const unsigned long long* __restrict__ blocks, const unsigned long long* __restrict__ keys,
             unsigned byteLength, unsigned count, unsigned* __restrict__ wrong,
             unsigned* __restrict__ first) {
  __shared__ unsigned wrongOfWarp[32];
  __shared__ unsigned firstOfWarp[32];
  const unsigned block = blockIdx.x;
  if (block >= count) return;
  const uint4* from = reinterpret_cast<const uint4*>(blocks[block]);
  const unsigned long long key = keys[block];
  unsigned myWrong = 0, myFirst = 0xffffffffu;
  for (unsigned at = blockIdx.y * blockDim.x + threadIdx.x; at < byteLength / 16;
       at += blockDim.x * gridDim.y) {
    const uint4 have = from[at], want = patternVector(key, at);
    if (have.x == want.x && have.y == want.y && have.z == want.z && have.w == want.w) continue;
    myWrong++;
    myFirst = min(myFirst, at);
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    myWrong += __shfl_xor_sync(0xffffffffu, myWrong, lanes);
    myFirst = min(myFirst, __shfl_xor_sync(0xffffffffu, myFirst, lanes));
  }
  const unsigned warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) {
    wrongOfWarp[warp] = myWrong;
    firstOfWarp[warp] = myFirst;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned other = 1; other < blockDim.x / 32; other++) {
    myWrong += wrongOfWarp[other];
    myFirst = min(myFirst, firstOfWarp[other]);
  }
  if (myWrong == 0) return;
  atomicAdd(&wrong[block], myWrong);
  atomicMin(&first[block], myFirst);
}
