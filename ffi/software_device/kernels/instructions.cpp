// What kernels call: barriers, exchanges, atomics, cp.async. `tensor.cpp` has the rest.
#include <algorithm>
#include <cstring>

#include "cuda_emulation.h"
#include "emulator.h"
#include "ptx_emulation.h"

#define HERE __builtin_return_address(0)

using namespace emulator;

unsigned char* emulated_dynamic_shared() {
  return reinterpret_cast<unsigned char*>(dynamicSharedStart());
}

void emulated_block_barrier() {
  arriveAtBlockBarrier();
  sleep("__syncthreads", HERE);
}

void emulated_named_barrier(int id, int threads, int wait) {
  // 0 is __syncthreads.
  if (id < 1 || id >= namedBarriers || threads < 32 || threads % 32 != 0 || threads > block.threads) {
    return refuse("a named barrier of a wrong number or count of threads", HERE);
  }
  NamedBarrier& barrier = block.named[id];
  if (barrier.count == 0) barrier.expected = threads;
  if (barrier.expected != threads) {
    return refuse("threads that come to one named barrier with different counts", HERE);
  }
  barrier.count++;
  if (checker != nullptr) checker->arrive(id);
  if (wait) barrier.waiting.push_back(block.current);
  if (barrier.count == threads) {
    if (checker != nullptr) checker->leave(id, barrier.waiting);
    auto& waiting = barrier.waiting;
    block.runnable.insert(block.runnable.end(), waiting.begin(), waiting.end());
    barrier = {};
  }
  if (wait) sleep("barrier_sync", HERE);
}

void emulated_warp_barrier(unsigned mask) {
  meet(warpBarrier, mask, HERE, [](Meeting&, int) {});
}

static std::shared_ptr<Meeting> exchange(unsigned mask, uint64_t value, Place place) {
  return meet(warpExchange, mask, place,
              [value](Meeting& meeting, int lane) { meeting.values[lane] = value; });
}

uint64_t emulated_exchange(unsigned mask, uint64_t value, int from) {
  return exchange(mask, value, HERE)->values[from];
}

unsigned emulated_ballot(unsigned mask, int predicate) {
  const auto meeting = exchange(mask, predicate != 0, HERE);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; lane++) bits |= unsigned(meeting->values[lane]) << lane;
  return bits;
}

void emulated_fence(int deviceScope) {
  if (checker != nullptr) checker->fence(deviceScope != 0);
}

static uint64_t load(const void* address, unsigned bytes) {
  uint64_t value = 0;
  std::memcpy(&value, address, bytes);
  return value;
}

uint64_t emulated_atomic(int operation, void* address, unsigned bytes, uint64_t value) {
  yield();
  if (checker != nullptr) checker->atomic(uint64_t(address), bytes, HERE);
  const uint64_t old = load(address, bytes);
  uint64_t next = value;
  if (operation == emulatedAdd) next = old + value;
  if (operation == emulatedMin) next = std::min(old, value);
  if (operation == emulatedMax) next = std::max(old, value);
  if (operation == emulatedAddFloat) {
    next = emulated_bits<uint64_t>(emulated_bits<float>(old) + emulated_bits<float>(value));
  }
  std::memcpy(address, &next, bytes);
  return old;
}

uint64_t emulated_compare_exchange(void* address, unsigned bytes, uint64_t expected, uint64_t value) {
  yield();
  if (checker != nullptr) checker->atomic(uint64_t(address), bytes, HERE);
  const uint64_t old = load(address, bytes);
  if (old == expected) std::memcpy(address, &value, bytes);
  return old;
}

void emulated_grid_wait() { current().waitedForGrid = true; }

void emulated_grid_launch() {
  if (!block.programmatic || current().waitedForGrid || checker == nullptr) return;
  checker->misuse("grid_launch before grid_wait", HERE, "the next kernel counts on the one before");
}

static void land(AsyncCopy& copy) {
  const size_t copied = copy.bytes - copy.zeroBytes;
  std::memcpy(copy.shared, copy.global, copied);
  std::memset(copy.shared + copied, 0, copy.zeroBytes);
}

void emulated_copy_async(void* shared, const void* global, size_t bytes, size_t zeroBytes) {
  const bool sized = bytes == 4 || bytes == 8 || bytes == 16;
  const bool aligned = (uint64_t(shared) | uint64_t(global)) % bytes == 0;
  if (!sized || !aligned || zeroBytes > bytes || !inShared(uint64_t(shared))) {
    return refuse("a cp.async of a wrong size, alignment or place", HERE);
  }
  Thread& thread = current();
  const AsyncCopy copy{static_cast<unsigned char*>(shared),
                       static_cast<const unsigned char*>(global),
                       bytes,
                       zeroBytes,
                       thread.group,
                       HERE};
  if (checker != nullptr) checker->copyIssued(copy);
  std::memset(shared, 0xff, bytes);  // it lands at its wait, and not before
  thread.copies.push_back(copy);
}

void emulated_copy_commit() { current().group++; }

void emulated_copy_wait(size_t pending) {
  Thread& thread = current();
  const uint32_t committed = thread.group - 1;
  const uint32_t landed = committed > pending ? committed - uint32_t(pending) : 0;
  auto& copies = thread.copies;
  for (auto& copy : copies) {
    if (copy.group <= landed) land(copy);
  }
  std::erase_if(copies, [landed](const AsyncCopy& copy) { return copy.group <= landed; });
  if (checker != nullptr) checker->copiesLanded(landed);
}
