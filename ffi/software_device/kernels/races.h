// The race checker: reports accesses of a kernel that nothing orders, whatever values they happened to
// give. The kernels are compiled with -fsanitize=thread; instrumentation.cpp stands in for libtsan.
//
// Order is kept in vector clocks, one a thread, of 2n components for a block of n threads: component t
// is thread t, and n + t is the copier that does the cp.async of thread t.
//   __syncthreads, __syncwarp  join the clocks of the threads that meet.
//   shuffle, ballot            exchange values and order no memory.
//   cp.async                   reads and writes as component n + t; its wait lets thread t know of that.
//   fence and atomic           as fences of C++: a thread's atomics publish what precedes its last
//                              fence; what its atomics saw is known after its next fence.
//   named barrier              a thread that waits (bar.sync) learns what all others knew on arrival;
//                              a thread that only arrives (bar.arrive) learns nothing.
//   mma, ldmatrix, movmatrix   exchange values, as a shuffle; each lane of ldmatrix reads what it gets.
//   blocks of a grid           have no order but that of fences and atomics.
//   launches                   are in order: the order of streams is not checked here. A programmatic
//                              launch learns what the launch before it wrote by grid_wait, and must
//                              not write to global memory before that.
#pragma once
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>

#include "emulator.h"

namespace emulator {

using Clock = std::vector<uint32_t>;
/// What is known of blocks, by their serial numbers.
using View = std::map<uint32_t, Clock>;

inline void joinInto(uint32_t* known, const uint32_t* more, size_t count) {
  for (size_t i = 0; i < count; i++) known[i] = std::max(known[i], more[i]);
}

inline void joinInto(View& known, const View& more) {
  for (auto& [serial, clock] : more) {
    Clock& mine = known[serial];
    if (mine.empty())
      mine = clock;
    else
      joinInto(mine.data(), clock.data(), mine.size());
  }
}

/// One thread's knowledge beyond its own block's clock, and what fences have done with it.
struct Fenced {
  View others;                           ///< Known of other blocks.
  View sawInBlock, sawOnDevice;          ///< Seen by atomics, known after the next fence.
  View publishInBlock, publishOnDevice;  ///< Known at the last fence, published by atomics.
};

enum class Kind : uint8_t { Plain, Atomic, Async };

/// One access: component `component` of block `block` at its time `clock`. Block 0: none.
struct Access {
  uint32_t block = 0, clock = 0;
  uint32_t component = 0;
  Kind kind = Kind::Plain;
  Place place = nullptr;
};

/// A byte of memory: its last write, and the reads since (one, while each knew of the one before).
struct Cell {
  Access write, read;
  std::vector<Access> moreReads;
  uint32_t launch = 0, owner = 0;
  bool writtenBefore = false;  ///< By the launch before this one.
};

/// What atomics at one address have published.
struct Published {
  View inBlock, onDevice;
  uint32_t launch = 0;
};

constexpr int pageBits = 10;
/// Reads of so many other blocks are kept for one byte: more would be found again at the next seed.
constexpr size_t mostForeignReads = 4;

class Races final : public Checker {
 public:
  void startBlock() override {
    const size_t threads = size_t(block.threads);
    clocks_.assign(threads * 2 * threads, 0);
    fenced_.assign(threads, {});
    for (size_t i = 0; i < threads; i++) clock(int(i))[i] = 1;
    for (auto& barrier : named_) barrier = {};
  }

  void join(const std::vector<int>& threads) override {
    const size_t components = 2 * size_t(block.threads);
    Clock all(components, 0);
    View others;
    for (int thread : threads) {
      joinInto(all.data(), clock(thread), components);
      joinInto(others, fenced_[size_t(thread)].others);
    }
    for (int thread : threads) {
      std::copy(all.begin(), all.end(), clock(thread));
      fenced_[size_t(thread)].others = others;
      tick(thread);
    }
  }

  void arrive(int barrier) override {
    const int me = block.current;
    auto& [clocks, others] = named_[barrier];
    clocks.resize(2 * size_t(block.threads), 0);
    joinInto(clocks.data(), clock(me), clocks.size());
    joinInto(others, fenced_[size_t(me)].others);
    tick(me);
  }
  void leave(int barrier, const std::vector<int>& threads) override {
    auto& [clocks, others] = named_[barrier];
    for (int thread : threads) {
      joinInto(clock(thread), clocks.data(), clocks.size());
      joinInto(fenced_[size_t(thread)].others, others);
    }
    named_[barrier] = {};
  }

  void read(uint64_t address, size_t bytes, Place place) override {
    access(address, bytes, false, Kind::Plain, place);
  }

  void fence(bool deviceScope) override {
    const int me = block.current;
    Fenced& mine = fenced_[size_t(me)];
    learn(me, mine.sawInBlock, false);
    learn(me, mine.sawOnDevice, deviceScope);
    mine.sawInBlock.clear();
    if (deviceScope) mine.sawOnDevice.clear();
    mine.publishInBlock = mine.others;
    mine.publishInBlock[block.serial] = Clock(clock(me), clock(me) + 2 * block.threads);
    if (deviceScope) mine.publishOnDevice = mine.publishInBlock;
    tick(me);
  }

  void atomic(uint64_t address, size_t bytes, Place place) override {
    access(address, bytes, false, Kind::Atomic, place);
    acquire(address);
    access(address, bytes, true, Kind::Atomic, place);
    release(address, false);
  }

  /// A volatile read may wait for another thread: it gets its turn.
  void volatileRead(uint64_t address, size_t bytes, Place place) {
    yield();
    access(address, bytes, false, Kind::Atomic, place);
    acquire(address);
  }
  void volatileWrite(uint64_t address, size_t bytes, Place place) {
    access(address, bytes, true, Kind::Atomic, place);
    release(address, true);
  }

  void copyIssued(const AsyncCopy& copy) override {
    access(uint64_t(copy.global), copy.bytes - copy.zeroBytes, false, Kind::Async, copy.place);
    access(uint64_t(copy.shared), copy.bytes, true, Kind::Async, copy.place);
  }

  void copiesLanded(uint32_t group) override {
    uint32_t& known = clock(block.current)[block.threads + block.current];
    known = std::max(known, group);
  }

  void misuse(const char* what, Place place, const std::string& detail) override {
    report(what, place, nullptr, detail);
  }

  void endLaunch(const char* kernel) override;

  void access(uint64_t address, size_t bytes, bool write, Kind kind, Place place);
  uint64_t take(char* text, uint64_t bytes);

 private:
  uint32_t* clock(int thread) { return &clocks_[size_t(thread) * 2 * size_t(block.threads)]; }
  void tick(int thread) { clock(thread)[thread]++; }

  void learn(int me, const View& seen, bool ofOthers) {
    for (auto& [serial, known] : seen) {
      if (serial == block.serial)
        joinInto(clock(me), known.data(), known.size());
      else if (ofOthers)
        joinInto(fenced_[size_t(me)].others, {{serial, known}});
    }
  }

  Published& published(uint64_t address) {
    Published& at = published_[address];
    if (at.launch != block.launch) at = {{}, {}, block.launch};
    return at;
  }
  void acquire(uint64_t address) {
    const Published& at = published(address);
    Fenced& mine = fenced_[size_t(block.current)];
    const auto own = at.inBlock.find(block.serial);
    if (own != at.inBlock.end()) joinInto(mine.sawInBlock, {*own});
    joinInto(mine.sawOnDevice, at.onDevice);
  }
  void release(uint64_t address, bool replace) {
    Published& at = published(address);
    if (replace) at = {{}, {}, block.launch};
    const Fenced& mine = fenced_[size_t(block.current)];
    joinInto(at.inBlock, mine.publishInBlock);
    joinInto(at.onDevice, mine.publishOnDevice);
  }

  bool known(const Access& earlier) {
    const int me = block.current;
    if (earlier.block == block.serial) return clock(me)[earlier.component] >= earlier.clock;
    const View& others = fenced_[size_t(me)].others;
    const auto of = others.find(earlier.block);
    return of != others.end() && earlier.component < of->second.size() &&
           of->second[earlier.component] >= earlier.clock;
  }
  /// Whether nothing orders an access after this earlier one.
  bool races(const Access& earlier, Kind kind) {
    const bool bothAtomic = earlier.kind == Kind::Atomic && kind == Kind::Atomic;
    return earlier.block != 0 && !bothAtomic && !known(earlier);
  }

  Cell& cell(uint64_t address, bool shared) {
    const uint64_t page = address >> pageBits;
    if (page != lastPage_) {
      auto& cells = pages_[page];
      if (cells == nullptr) cells.reset(new Cell[1 << pageBits]);
      lastPage_ = page;
      lastCells_ = cells.get();
    }
    Cell& one = lastCells_[address & ((1 << pageBits) - 1)];
    const bool other = one.launch != block.launch || (shared && one.owner != block.serial);
    if (other) {
      const bool before = one.launch == block.launch ? one.writtenBefore
                                                      : one.launch + 1 == block.launch && one.write.block != 0;
      one = {{}, {}, {}, block.launch, block.serial, before};
    }
    return one;
  }

  void readCell(Cell& one, const Access& now);
  void writeCell(Cell& one, const Access& now, uint64_t address);
  void checkGridWait(const Cell& one, bool write, Place place);
  void clash(const char* what, uint64_t address, const Access& earlier, Place place);
  void report(const char* what, Place place, Place earlier, const std::string& detail) {
    reports_.insert({{what, place, earlier}, detail});
  }

  Clock clocks_;
  std::vector<Fenced> fenced_;
  /// For each named barrier, what the threads that have arrived at it know.
  std::pair<Clock, View> named_[namedBarriers];
  std::unordered_map<uint64_t, std::unique_ptr<Cell[]>> pages_;
  uint64_t lastPage_ = ~uint64_t(0);
  Cell* lastCells_ = nullptr;
  std::unordered_map<uint64_t, Published> published_;
  std::map<std::tuple<std::string, Place, Place>, std::string> reports_;
  std::set<std::string> lines_;
};

Races& races();

}  // namespace emulator
