#include "races.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "cuda_emulation.h"

namespace emulator {

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
    if (block.programmatic && !shared) checkGridWait(one, write, place);
    if (races(one.write, kind))
      clash(write ? "write after write" : "read after write", at, one.write, place);
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

void Races::checkGridWait(const Cell& one, bool write, Place place) {
  if (block.thread[size_t(block.current)].waitedForGrid) return;
  if (write) report("a write to global memory before grid_wait", place, nullptr, "");
  if (one.writtenBefore) {
    report("a use before grid_wait of memory that the kernel before wrote", place, nullptr, "");
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
  if (earlier.block != block.serial)
    hint = "two blocks of a grid: atomics with __threadfence?";
  else if (async && other == me)
    hint = "the thread's own cp.async: its wait?";
  else if (async)
    hint = "another thread's cp.async: its wait, then a barrier?";
  else if (other / 32 == me / 32)
    hint = "threads of one warp: __syncwarp?";
  char detail[200];
  std::snprintf(detail, sizeof detail, "%s memory, block %u,%u,%u, thread %d after thread %d (%s)",
                inShared(address) ? "shared" : "global", blockIdx.x, blockIdx.y, blockIdx.z, me, other,
                hint);
  report(what, place, earlier.place, detail);
}

namespace {

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
    const bool own = line.find("cuda_emulation.h") == std::string::npos &&
                     line.find("ptx_emulation.h") == std::string::npos &&
                     line.find("registry.h") == std::string::npos;
    if (own) lines += (lines.empty() ? "" : " < ") + line;
  }
  if (output != nullptr) pclose(output);
  return lines;
}

}  // namespace

void Races::endLaunch(const char* kernel) {
  for (auto& [key, detail] : reports_) {
    auto& [what, place, earlier] = key;
    std::string line = std::string(kernel) + ": " + what;
    if (place != nullptr) line += " at " + lineOf(place);
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

Checker* const checker = &races();

}  // namespace emulator
