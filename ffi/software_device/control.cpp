// What a test asks of the software device beyond CUDA: who it is, other settings, what is still alive.
#include <algorithm>
#include <cstdio>

#include "device.h"

using namespace soft;

#define CONTROL extern "C" __attribute__((visibility("default")))

/// The symbol that tells the software device from a real library: whatever is measured or logged with a
/// library that has it carries this label.
CONTROL const char* llumnixSoftwareDevice() { return "software device 1 (not a GPU)"; }

/// Changes settings as LLUMNIX_SOFTWARE_DEVICE does, from the next call on. A new seed starts its
/// sequence. Returns 0, or 1 after a line on stderr that says what is wrong.
CONTROL int llumnixSoftwareDeviceConfigure(const char* text) {
  Engine& engine = Engine::get();
  Engine::Lock lock(engine.mutex);
  const std::string complaint = configure(text);
  if (!complaint.empty()) {
    std::fprintf(stderr, "llumnixSoftwareDeviceConfigure: %s\n", complaint.c_str());
    return 1;
  }
  engine.restartOrder();
  return 0;
}

/// As a new process would find the device: no memory, streams, events or faults. Contexts stay retained:
/// libraries keep their handles for the life of the process.
CONTROL void llumnixSoftwareDeviceReset() {
  Engine& engine = Engine::get();
  Engine::Lock lock(engine.mutex);
  Driver& driver = Driver::get();
  for (auto& capture : driver.captures) capture->finish();
  driver.captures.clear();
  driver.streams.clear();
  driver.events.clear();
  driver.graphs.clear();
  driver.executables.clear();
  driver.modules.clear();
  for (auto& context : driver.contexts) std::fill(context.peers, context.peers + mostDevices, false);
  engine.reset(lock);
  Memory::get().reset();
}

/// What is alive: device allocations, pinned allocations, registered ranges, opened handles, streams,
/// events, graphs and executable graphs, work not done. For tests that look for leaks.
CONTROL void llumnixSoftwareDeviceCounts(uint64_t counts[8]) {
  Engine& engine = Engine::get();
  Engine::Lock lock(engine.mutex);
  const Memory& memory = Memory::get();
  const Driver& driver = Driver::get();
  counts[0] = memory.count(Kind::Device);
  counts[1] = memory.count(Kind::Pinned);
  counts[2] = memory.count(Kind::Registered);
  counts[3] = memory.count(Kind::Imported);
  counts[4] = driver.streams.count();
  counts[5] = driver.events.count();
  counts[6] = driver.graphs.count() + driver.executables.count();
  counts[7] = engine.unfinished();
}
