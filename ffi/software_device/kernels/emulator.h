// CUDA's execution model on a CPU: each thread of a block is a fiber, one block runs at a time, and the
// next thread is a seeded choice among those that can go on. Threads change places at barriers, warp
// operations, atomics and fences.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "interface.h"

namespace emulator {

/// Where a thread is: an address in the kernel's code. The race checker turns it into a line.
using Place = const void*;

constexpr size_t stackBytes = 128 << 10;
constexpr size_t mostSharedBytes = 227 << 10;

/// A cp.async that has not landed.
struct AsyncCopy {
  unsigned char* shared;
  const unsigned char* global;
  size_t bytes, zeroBytes;
  uint32_t group;
  Place place;
};

struct Thread {
  void* stackPointer = nullptr;
  bool done = false;
  bool waitedForGrid = false;  ///< It has called grid_wait.
  const char* waitsFor = "";
  Place waitsAt = nullptr;
  uint32_t group = 1;  ///< Group of cp.async that is being filled; those below are committed.
  std::vector<AsyncCopy> copies;
};

/// Operands of mma.m16n8k16, as float: a[row][k], b[column][k].
struct Operands {
  float a[16][16], b[8][16];
};

/// Lanes of a warp that meet at one operation.
struct Meeting {
  const char* what = "";  ///< One of the names below: lanes at different operations do not meet.
  unsigned mask = 0, arrived = 0;
  uint64_t values[32] = {};
  std::unique_ptr<Operands> operands;
};
inline constexpr char warpBarrier[] = "__syncwarp";  ///< Orders memory; the others exchange data only.
inline constexpr char warpExchange[] = "a warp exchange";
inline constexpr char loadMatrix[] = "ldmatrix";
inline constexpr char moveMatrix[] = "movmatrix";
inline constexpr char multiply[] = "mma";

/// A barrier of the block for a number of its threads.
struct NamedBarrier {
  int expected = 0, count = 0;
  std::vector<int> waiting;
};
constexpr int namedBarriers = 16;

struct Block {
  int threads = 0, current = -1, alive = 0;
  uint32_t serial = 0;  ///< Number of this block in the process, from 1.
  uint32_t launch = 0;
  size_t dynamicBytes = 0;
  bool programmatic = false;  ///< It may begin before the kernel launched before it has ended.
  std::vector<Thread> thread;
  std::vector<int> runnable, atBarrier;
  std::vector<std::vector<std::shared_ptr<Meeting>>> meetings;  ///< Of each warp.
  NamedBarrier named[namedBarriers];
  std::vector<std::string> complaints;
  unsigned char* stacks = nullptr;
  size_t stackCapacity = 0;
};
extern Block block;

/// State of the seeded sequence that orders blocks and threads; 0: by their numbers.
extern uint64_t orderState;
/// The sequence's next number below `bound`.
size_t choose(size_t bound);

enum class End {
  Done,
  Fault,    ///< A thread touched memory that is not there.
  Failure,  ///< Threads wait for ever, or did what the hardware refuses.
};
/// Runs a block of the grid. `complaint` says what ended it before its threads had ended.
End runBlock(const KernelInfo& kernel, const unsigned char* parameters, const LaunchShape& shape,
             unsigned number, std::string& complaint);

/// Lets another thread go first, if the order has one.
void yield();
inline Thread& current() { return block.thread[size_t(block.current)]; }
/// Waits until something makes the current thread runnable again.
void sleep(const char* what, Place place);
void arriveAtBlockBarrier();
/// Waits until all lanes of the mask have come. `bring` adds what this lane contributes.
std::shared_ptr<Meeting> meet(const char* what, unsigned mask, Place place,
                              const std::function<void(Meeting&, int lane)>& bring);
/// Reports what the hardware refuses or leaves undefined, and ends the kernel.
void refuse(const char* what, Place place);
bool inShared(uint64_t address);
bool inDynamicShared(uint64_t address);
bool inStack(uint64_t address);
uint64_t dynamicSharedStart();

/// What the race checker is told. Null in a library without it.
class Checker {
 public:
  virtual ~Checker() = default;
  virtual void startBlock() = 0;
  /// These threads have met at a barrier: what each did before it is ordered before what each does next.
  virtual void join(const std::vector<int>& threads) = 0;
  /// The current thread has come to a named barrier, where it may wait or not.
  virtual void arrive(int barrier) = 0;
  /// These threads leave it: what each that arrived did before is ordered before what they do next.
  virtual void leave(int barrier, const std::vector<int>& threads) = 0;
  virtual void fence(bool deviceScope) = 0;
  virtual void read(uint64_t address, size_t bytes, Place place) = 0;
  virtual void atomic(uint64_t address, size_t bytes, Place place) = 0;
  virtual void copyIssued(const AsyncCopy& copy) = 0;
  /// Copies of the current thread's groups up to this one have landed for it.
  virtual void copiesLanded(uint32_t group) = 0;
  virtual void misuse(const char* what, Place place, const std::string& detail) = 0;
  virtual void endLaunch(const char* kernel) = 0;
};
extern Checker* const checker;

}  // namespace emulator
