// The race checker: reports accesses of a kernel that nothing orders, whatever values they happened to
// give. The kernels are compiled with -fsanitize=thread and call the __tsan_* functions below, which stand
// in for libtsan; this file is not instrumented.
//
// Order is kept in vector clocks, one a thread, of 2n components for a block of n threads: component t is
// thread t, and n + t is the copier that does the cp.async of thread t.
//   __syncthreads, __syncwarp   join the clocks of the threads that meet
//   shuffle, ballot             exchange values and order no memory
//   cp.async                    reads and writes as component n + t; its wait lets thread t know of that
//   fence and atomic            as fences of C++: what precedes a thread's fence is published by its later
//                               atomics; what its atomics saw is known after its next fence
//   blocks of a grid            have no order but that of fences and atomics
//   launches                    have one: that of streams is another matter
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>

#include "cuda_emulation.h"
#include "emulator.h"

#define EXPORT extern "C" __attribute__((visibility("default")))
#define HERE __builtin_return_address(0)

namespace emulator {
namespace {

using Clock = std::vector<uint32_t>;
/// What is known of blocks, by their serial numbers.
using View = std::map<uint32_t, Clock>;

void joinInto(uint32_t* known, const uint32_t* more, size_t count) {
  for (size_t i = 0; i < count; i++) known[i] = std::max(known[i], more[i]);
}

void joinInto(View& known, const View& more) {
  for (auto& [serial, clock] : more) {
    Clock& mine = known[serial];
    if (mine.empty()) mine = clock;
    else joinInto(mine.data(), clock.data(), mine.size());
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
      if (serial == block.serial) joinInto(clock(me), known.data(), known.size());
      else if (ofOthers) joinInto(fenced_[size_t(me)].others, {{serial, known}});
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
    if (other) one = {{}, {}, {}, block.launch, block.serial};
    return one;
  }

  void readCell(Cell& one, const Access& now);
  void writeCell(Cell& one, const Access& now, uint64_t address);
  void clash(const char* what, uint64_t address, const Access& earlier, Place place);
  void report(const char* what, Place place, Place earlier, const std::string& detail) {
    reports_.insert({{what, place, earlier}, detail});
  }

  Clock clocks_;
  std::vector<Fenced> fenced_;
  std::unordered_map<uint64_t, std::unique_ptr<Cell[]>> pages_;
  uint64_t lastPage_ = ~uint64_t(0);
  Cell* lastCells_ = nullptr;
  std::unordered_map<uint64_t, Published> published_;
  std::map<std::tuple<std::string, Place, Place>, std::string> reports_;
  std::set<std::string> lines_;
};

Races& races() {
  static Races& one = *new Races;
  return one;
}

void Races::access(uint64_t address, size_t bytes, bool write, Kind kind, Place place) {
  const int me = block.current;
  if (me < 0 || bytes == 0) return;
  if (inStack(address)) {
    const bool own = (address - uint64_t(block.stacks)) / stackBytes == uint64_t(me);
    if (!own) report("an access to another thread's local memory", place, nullptr, "");
    return;
  }
  const bool shared = inShared(address);
  if (inDynamicShared(address) && address + bytes > dynamicSharedStart() + block.dynamicBytes) {
    report("an access beyond the launch's dynamic shared memory", place, nullptr, "");
  }
  Access now{block.serial, clock(me)[me], uint32_t(me), kind, place};
  if (kind == Kind::Async) {
    now.component = uint32_t(block.threads + me);
    now.clock = block.thread[size_t(me)].group;
  }
  for (uint64_t at = address; at < address + bytes; at++) {
    Cell& one = cell(at, shared);
    if (races(one.write, kind)) clash(write ? "write after write" : "read after write", at, one.write, place);
    if (write) {
      writeCell(one, now, at);
      continue;
    }
    if (shared && one.write.block == 0) {
      report("a read of shared memory that no thread wrote", place, nullptr, "");
    }
    readCell(one, now);
  }
}

void Races::readCell(Cell& one, const Access& now) {
  const bool same = one.read.block == now.block && one.read.component == now.component;
  if (one.read.block == 0 || same || (one.moreReads.empty() && known(one.read))) {
    one.read = now;
    return;
  }
  size_t foreign = 0;
  for (auto& read : one.moreReads) {
    if (read.block == now.block && read.component == now.component) {
      read = now;
      return;
    }
    foreign += read.block != now.block;
  }
  if (foreign >= mostForeignReads) {
    const auto other = std::find_if(one.moreReads.begin(), one.moreReads.end(),
                                    [&](const Access& read) { return read.block != now.block; });
    one.moreReads.erase(other);
  }
  one.moreReads.push_back(now);
}

void Races::writeCell(Cell& one, const Access& now, uint64_t address) {
  one.moreReads.push_back(one.read);
  for (auto& read : one.moreReads) {
    if (!races(read, now.kind)) continue;
    clash("write after read", address, read, now.place);
    break;
  }
  one.moreReads.clear();
  one.read = {};
  one.write = now;
}

void Races::clash(const char* what, uint64_t address, const Access& earlier, Place place) {
  const int me = block.current;
  const bool async = earlier.kind == Kind::Async;
  const int other = int(earlier.component) - (async ? block.threads : 0);
  const char* hint = "threads of two warps: __syncthreads?";
  if (earlier.block != block.serial) hint = "two blocks of a grid: atomics with __threadfence?";
  else if (async && other == me) hint = "the thread's own cp.async: its wait?";
  else if (async) hint = "another thread's cp.async: its wait, then a barrier?";
  else if (other / 32 == me / 32) hint = "threads of one warp: __syncwarp?";
  char detail[200];
  std::snprintf(detail, sizeof detail, "%s memory, block %u,%u,%u, thread %d after thread %d (%s)",
                inShared(address) ? "shared" : "global", blockIdx.x, blockIdx.y, blockIdx.z, me, other, hint);
  report(what, place, earlier.place, detail);
}

/// "kv.cu:88 < kv.cu:90": the innermost place that is the kernel's own, and its callers.
std::string lineOf(Place place) {
  Dl_info library;
  if (place == nullptr || dladdr(place, &library) == 0) return "?";
  char command[600], text[600];
  const uint64_t offset = uint64_t(place) - uint64_t(library.dli_fbase) - 1;
  std::snprintf(command, sizeof command, "addr2line -i -s -e '%s' %#llx", library.dli_fname,
                static_cast<unsigned long long>(offset));
  std::string lines;
  FILE* output = popen(command, "r");
  while (output != nullptr && std::fgets(text, sizeof text, output) != nullptr) {
    const std::string line(text, std::strcspn(text, " \n"));
    const bool own = line.find("cuda_emulation.h") == std::string::npos && line.find("registry.h") == std::string::npos;
    if (own) lines += (lines.empty() ? "" : " < ") + line;
  }
  if (output != nullptr) pclose(output);
  return lines;
}

void Races::endLaunch(const char* kernel) {
  for (auto& [key, detail] : reports_) {
    auto& [what, place, earlier] = key;
    std::string line = std::string(kernel) + ": " + what + " at " + lineOf(place);
    if (earlier != nullptr) line += " against " + lineOf(earlier);
    if (!detail.empty()) line += ": " + detail;
    lines_.insert(line);
  }
  reports_.clear();
}

uint64_t Races::take(char* text, uint64_t bytes) {
  std::string all;
  for (auto& line : lines_) all += line + "\n";
  std::snprintf(text, bytes, "%s", all.c_str());
  const uint64_t count = lines_.size();
  lines_.clear();
  return count;
}

}  // namespace

Checker* const checker = &races();

}  // namespace emulator

using namespace emulator;

/// The reports since the last call, a line each, and their number.
EXPORT uint64_t llumnixRaceReports(char* text, uint64_t bytes) { return races().take(text, bytes); }

// ---- what instrumented code calls

EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}

#define ACCESSES(bytes)                                                                              \
  EXPORT void __tsan_read##bytes(void* at) {                                                         \
    races().access(uint64_t(at), bytes, false, Kind::Plain, HERE);                                   \
  }                                                                                                  \
  EXPORT void __tsan_write##bytes(void* at) {                                                        \
    races().access(uint64_t(at), bytes, true, Kind::Plain, HERE);                                    \
  }                                                                                                  \
  EXPORT void __tsan_unaligned_read##bytes(void* at) {                                               \
    races().access(uint64_t(at), bytes, false, Kind::Plain, HERE);                                   \
  }                                                                                                  \
  EXPORT void __tsan_unaligned_write##bytes(void* at) {                                              \
    races().access(uint64_t(at), bytes, true, Kind::Plain, HERE);                                    \
  }                                                                                                  \
  EXPORT void __tsan_volatile_read##bytes(void* at) { races().volatileRead(uint64_t(at), bytes, HERE); } \
  EXPORT void __tsan_volatile_write##bytes(void* at) { races().volatileWrite(uint64_t(at), bytes, HERE); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

EXPORT void __tsan_read_range(void* at, size_t bytes) {
  races().access(uint64_t(at), bytes, false, Kind::Plain, HERE);
}
EXPORT void __tsan_write_range(void* at, size_t bytes) {
  races().access(uint64_t(at), bytes, true, Kind::Plain, HERE);
}

// The build gives these names to the instrumented code's calls of memcpy and its kin.
EXPORT void* emulated_memcpy(void* to, const void* from, size_t bytes) {
  races().access(uint64_t(from), bytes, false, Kind::Plain, HERE);
  races().access(uint64_t(to), bytes, true, Kind::Plain, HERE);
  return std::memcpy(to, from, bytes);
}
EXPORT void* emulated_memmove(void* to, const void* from, size_t bytes) {
  races().access(uint64_t(from), bytes, false, Kind::Plain, HERE);
  races().access(uint64_t(to), bytes, true, Kind::Plain, HERE);
  return std::memmove(to, from, bytes);
}
EXPORT void* emulated_memset(void* to, int value, size_t bytes) {
  races().access(uint64_t(to), bytes, true, Kind::Plain, HERE);
  return std::memset(to, value, bytes);
}
