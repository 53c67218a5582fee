#include "emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <numeric>
#include <string>

#include "cuda_emulation.h"
#include "faults.h"
#include "registry.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

// Saves the callee's registers and the stack pointer, and goes on where another stack left off.
extern "C" void emulated_switch(void** from, void* to);
asm(R"(
.text
.globl emulated_switch
.hidden emulated_switch
emulated_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

/// Bounds of the section that holds the kernels' static shared memory.
extern unsigned char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

namespace emulator {

Block block;
uint64_t orderState = 0;

size_t choose(size_t bound) {
  orderState ^= orderState >> 12;
  orderState ^= orderState << 25;
  orderState ^= orderState >> 27;
  return (orderState * 0x2545f4914f6cdd1dull >> 32) % bound;
}

namespace {

void* mainStack = nullptr;
const KernelInfo* kernel = nullptr;
const unsigned char* parameters = nullptr;
bool stuck = false;
/// Poisoned beyond a launch's dynamic shared memory, for accesses that go too far.
constexpr size_t overrunBytes = 4096;
alignas(128) unsigned char dynamicShared[mostSharedBytes];

unsigned bound(const dim3& shape) { return shape.x * shape.y * shape.z; }

dim3 indexIn(unsigned number, const dim3& shape) {
  return {number % shape.x, number / shape.x % shape.y, number / (shape.x * shape.y)};
}

/// Goes to some thread that can run. The caller has put the current thread where it waits.
void dispatch(void** save) {
  if (block.runnable.empty()) {
    stuck = block.alive > 0;
    block.current = -1;
    emulated_switch(save, mainStack);
    return;
  }
  const size_t which = orderState != 0 ? choose(block.runnable.size()) : 0;
  const int next = block.runnable[which];
  block.runnable.erase(block.runnable.begin() + long(which));
  const bool same = next == block.current;
  block.current = next;
  threadIdx = indexIn(unsigned(next), blockDim);
  if (!same) emulated_switch(save, block.thread[size_t(next)].stackPointer);
}

void releaseBarrier() {
  if (block.alive == 0 || int(block.atBarrier.size()) < block.alive) return;
  if (checker != nullptr) checker->join(block.atBarrier);
  block.runnable.insert(block.runnable.end(), block.atBarrier.begin(), block.atBarrier.end());
  block.atBarrier.clear();
}

unsigned aliveMask(int warp) {
  unsigned mask = 0;
  for (int lane = 0; lane < 32 && warp * 32 + lane < block.threads; lane++) {
    if (!block.thread[size_t(warp * 32 + lane)].done) mask |= 1u << lane;
  }
  return mask;
}

/// Ends the meetings to which every lane that is still there has come.
void releaseMeetings(int warp) {
  auto& open = block.meetings[size_t(warp)];
  for (size_t i = 0; i < open.size();) {
    const auto meeting = open[i];
    if (meeting->arrived == 0 ||
        (meeting->arrived & aliveMask(warp)) != (meeting->mask & aliveMask(warp))) {
      i++;
      continue;
    }
    open.erase(open.begin() + long(i));
    std::vector<int> group;
    for (int lane = 0; lane < 32; lane++) {
      const int number = warp * 32 + lane;
      if (meeting->arrived >> lane & 1 && !block.thread[size_t(number)].done) group.push_back(number);
    }
    if (meeting->what == warpBarrier && checker != nullptr) checker->join(group);
    block.runnable.insert(block.runnable.end(), group.begin(), group.end());
  }
}

/// The body of each fiber.
void fiber() {
  kernel->run(parameters);
  Thread& thread = current();
  if (!thread.copies.empty() && checker != nullptr) {
    checker->misuse("the thread ended with a cp.async under way", thread.copies[0].place, "");
  }
  if (block.programmatic && !thread.waitedForGrid && checker != nullptr) {
    checker->misuse("a thread of a programmatic launch ended without grid_wait", nullptr, "");
  }
  thread.done = true;
  block.alive--;
  releaseBarrier();
  releaseMeetings(block.current / 32);
  block.current = -2;
  void* dead;
  dispatch(&dead);
  __builtin_unreachable();
}

void prepareStacks(size_t threads) {
  if (block.stackCapacity >= threads) return;
  if (block.stacks != nullptr) munmap(block.stacks, block.stackCapacity * stackBytes);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* stacks = mmap(nullptr, threads * stackBytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  block.stacks = stacks == MAP_FAILED ? nullptr : static_cast<unsigned char*>(stacks);
  block.stackCapacity = block.stacks == nullptr ? 0 : threads;
}

bool startBlock(const LaunchShape& shape) {
  const size_t threads = bound(blockDim);
  prepareStacks(threads);
  if (block.stacks == nullptr) return false;
  block.threads = block.alive = int(threads);
  block.serial++;
  block.dynamicBytes = shape.dynamicBytes;
  block.programmatic = shape.programmatic != 0;
  block.thread.assign(threads, Thread());
  block.meetings.assign((threads + 31) / 32, {});
  block.runnable.resize(threads);
  std::iota(block.runnable.begin(), block.runnable.end(), 0);
  block.atBarrier.clear();
  for (auto& barrier : block.named) barrier = {};
  block.complaints.clear();
  const size_t poisoned = size_t(shape.dynamicBytes) + overrunBytes;
  std::memset(dynamicShared, 0xff, std::min(poisoned, sizeof dynamicShared));
  if (__start_emulated_shared != nullptr) {
    std::memset(__start_emulated_shared, 0xff, size_t(__stop_emulated_shared - __start_emulated_shared));
  }
  for (size_t i = 0; i < threads; i++) {
    // As emulated_switch leaves a stack: six registers, then the address to return to; aligned as a
    // call.
    auto* top = reinterpret_cast<uint64_t*>(block.stacks + (i + 1) * stackBytes - 72);
    top[0] = 0;
    top[-1] = reinterpret_cast<uint64_t>(&fiber);
    std::fill(top - 7, top - 1, 0);
    block.thread[i].stackPointer = top - 7;
  }
  if (checker != nullptr) checker->startBlock();
  return true;
}

std::string waiting() {
  std::map<std::string, int> at;
  for (auto& thread : block.thread) {
    if (!thread.done) at[thread.waitsFor]++;
  }
  std::string text;
  for (auto& [what, count] : at) text += " " + std::to_string(count) + " at " + what + ";";
  return text;
}

/// Runs the threads of the block that `startBlock` made.
End runThreads(std::string& complaint) {
  stuck = false;
  Fault fault{};
  const bool faulted = !runGuarded([] { dispatch(&mainStack); }, fault);
  if (faulted && fault.isDivision) {
    complaint = "thread " + std::to_string(block.current) + " divided an integer by zero";
  } else if (faulted) {
    char text[120];
    std::snprintf(text, sizeof text, "thread %d touched %#llx, where no memory is", block.current,
                  static_cast<unsigned long long>(fault.address));
    complaint = text;
  } else if (stuck) {
    complaint = "threads wait for ever:" + waiting();
    for (auto& thread : block.thread) {
      if (checker == nullptr || thread.done) continue;
      checker->misuse("threads wait for ever", thread.waitsAt, thread.waitsFor);
    }
  } else if (!block.complaints.empty()) {
    complaint = block.complaints[0];
  }
  block.current = -1;
  return faulted ? End::Fault : complaint.empty() ? End::Done : End::Failure;
}

}  // namespace

End runBlock(const KernelInfo& info, const unsigned char* values, const LaunchShape& shape,
             unsigned number, std::string& complaint) {
  kernel = &info;
  parameters = values;
  gridDim = {shape.grid[0], shape.grid[1], shape.grid[2]};
  blockDim = {shape.block[0], shape.block[1], shape.block[2]};
  blockIdx = indexIn(number, gridDim);
  if (!startBlock(shape)) {
    complaint = "no memory for the stacks of its threads";
    return End::Failure;
  }
  const End end = runThreads(complaint);
  if (end != End::Done) {
    char where[80];
    std::snprintf(where, sizeof where, "block %u,%u,%u: ", blockIdx.x, blockIdx.y, blockIdx.z);
    complaint = where + complaint;
  }
  return end;
}

void sleep(const char* what, Place place) {
  Thread& thread = current();
  thread.waitsFor = what;
  thread.waitsAt = place;
  dispatch(&thread.stackPointer);
}

void arriveAtBlockBarrier() {
  block.atBarrier.push_back(block.current);
  releaseBarrier();
}

void refuse(const char* what, Place place) {
  if (checker != nullptr) checker->misuse(what, place, "");
  block.complaints.push_back(what);
}

std::shared_ptr<Meeting> meet(const char* what, unsigned mask, Place place,
                              const std::function<void(Meeting&, int lane)>& bring) {
  const int warp = block.current / 32, lane = block.current % 32;
  if (!(mask >> lane & 1) && checker != nullptr) {
    checker->misuse("a warp operation by a lane that its mask leaves out", place, what);
  }
  auto& open = block.meetings[size_t(warp)];
  const auto same = std::find_if(open.begin(), open.end(), [&](auto& one) {
    return one->what == what && one->mask == mask && !(one->arrived >> lane & 1);
  });
  auto meeting = same == open.end() ? std::make_shared<Meeting>() : *same;
  if (same == open.end()) open.push_back(meeting);
  meeting->what = what;
  meeting->mask = mask;
  meeting->arrived |= 1u << lane;
  bring(*meeting, lane);
  releaseMeetings(warp);
  sleep(what, place);
  return meeting;
}

void yield() {
  block.runnable.push_back(block.current);
  dispatch(&current().stackPointer);
}

uint64_t dynamicSharedStart() { return uint64_t(dynamicShared); }
bool inDynamicShared(uint64_t address) {
  return address - uint64_t(dynamicShared) < sizeof dynamicShared;
}
bool inShared(uint64_t address) {
  const bool inStatic =
      address >= uint64_t(__start_emulated_shared) && address < uint64_t(__stop_emulated_shared);
  return inStatic || inDynamicShared(address);
}
bool inStack(uint64_t address) {
  return address - uint64_t(block.stacks) < block.stackCapacity * stackBytes;
}

}  // namespace emulator
