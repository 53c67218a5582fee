// State of the driver that the cu* functions share: contexts, handles, and the check that each call
// starts with.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "graph.h"
#include "memory.h"
#include "streams.h"

#define CUDA_API extern "C" __attribute__((visibility("default"))) int

namespace soft {

constexpr int mostDevices = 16;
/// Priorities of streams, as on every NVIDIA device since Pascal: a smaller number goes first.
constexpr int leastPriority = 0, greatestPriority = -5;

struct Event {
  int device = 0;
  unsigned flags = 0;                ///< 1 blocking sync, 2 no timing, 4 for other processes (needs 2).
  WorkRef last;                      ///< Of the latest record.
  std::shared_ptr<Capture> capture;  ///< Set if the latest record was in a capture.
  std::vector<size_t> nodes;
  std::shared_ptr<SharedFile> shared;
};
using EventRef = std::shared_ptr<Event>;

inline uint64_t newHandle() {
  static uint64_t last = uint64_t(0x5) << 44;
  return last += 64;
}

/// Objects by the handles that the host has. A handle is never used twice, so that one used after
/// its destruction, or taken for one of another kind, is refused with error 400.
template <class T>
class Handles {
 public:
  uint64_t add(std::shared_ptr<T> object) {
    const uint64_t handle = newHandle();
    objects_[handle] = std::move(object);
    return handle;
  }
  std::shared_ptr<T> find(uint64_t handle) const {
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }
  std::shared_ptr<T> remove(uint64_t handle) {
    auto object = find(handle);
    objects_.erase(handle);
    return object;
  }
  size_t count() const { return objects_.size(); }
  const std::map<uint64_t, std::shared_ptr<T>>& all() const { return objects_; }
  void clear() { objects_.clear(); }

 private:
  std::map<uint64_t, std::shared_ptr<T>> objects_;
};

struct Kernel;
struct Module;

struct Context {
  int retained = 0;
  unsigned flags = 0;
  bool peers[mostDevices] = {};
};

struct Driver {
  bool initialized = false;
  Context contexts[mostDevices];
  Handles<Stream> streams;
  Handles<Event> events;
  Handles<Graph> graphs;
  Handles<ExecutableGraph> executables;
  Handles<Module> modules;
  std::vector<std::shared_ptr<Capture>> captures;
  static Driver& get();
};

/// Device whose context is current in the calling thread; -1: none.
int currentDevice();
void setCurrentDevice(int device);

/// One call of the API: holds the engine's lock, and knows whether the call may go on.
class Call {
 public:
  enum Needs { Context, CaptureSafe, Initialized };
  /// Context: a current context without a fault. A capture that forbids unsafe calls is broken by it.
  /// CaptureSafe: as Context, for calls that a capture allows. Initialized: cuInit was called.
  explicit Call(Needs needs = Context);

  Engine& engine = Engine::get();
  Memory& memory = Memory::get();
  Driver& driver = Driver::get();
  Engine::Lock lock;
  Status status = Ok;
  int device = -1;
  bool refused() const { return status != Ok; }

  /// The stream of a handle (0 and 1: the legacy stream), or null.
  StreamRef stream(uint64_t handle);
  /// Puts work into the stream, or into the graph that is captured from it.
  Status submit(const StreamRef& stream, const char* what, Maker make, bool countable = true,
                WorkRef* submitted = nullptr);
  /// Ok, or the error that ended the context meanwhile.
  Status outcome() const { return engine.fault(device); }
};

}  // namespace soft
