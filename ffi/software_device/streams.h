// Streams whose work runs as late as CUDA's rules allow.
//
// Work runs once everything before it in its stream has run, and everything it waits for elsewhere.
// Nothing but the order setting decides when, within that rule, it does run: a missing wait for an
// event, a host buffer used again too early or memory freed too early then fails at every try.
#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "settings.h"
#include "status.h"

namespace soft {

using Clock = std::chrono::steady_clock;

/// What came of one piece of work.
enum class Step {
  Done,
  More,     ///< Another piece is left.
  Blocked,  ///< Something outside this process's streams has to happen first.
};

/// Runs one bounded piece, without the engine's lock; a query runs at most one.
using Body = std::function<Step()>;
/// Makes a fresh body. A graph calls it once per launch.
using Maker = std::function<Body()>;

struct Stream;
struct Capture;
using StreamRef = std::shared_ptr<Stream>;

/// One piece of a stream's work, from its submission to its completion.
struct Work {
  const char* what = "";
  Body body;
  StreamRef stream;
  std::vector<std::shared_ptr<Work>> after;  ///< Work of other streams that runs first.
  Clock::time_point submitted, completed;
  bool running = false;
  bool done = false;
  bool hasPeers = false;  ///< It may be blocked until work of other streams runs: a rank of NCCL.
};
using WorkRef = std::shared_ptr<Work>;

struct Stream {
  int device = 0;
  int priority = 0;
  unsigned flags = 0;  ///< 1: nonblocking, does not wait for the legacy stream.
  std::deque<WorkRef> queue;
  std::shared_ptr<Capture> capture;  ///< While a graph is recorded.
  std::vector<size_t> frontier;      ///< Nodes of the capture that this stream's next node follows.
  bool legacy = false;
};

/// All streams of the process. One lock guards them, and the tables of memory and handles.
class Engine {
 public:
  static Engine& get();

  std::mutex mutex;

  /// The functions below expect `lock` to hold `mutex`; they let go of it while work runs.
  using Lock = std::unique_lock<std::mutex>;

  StreamRef addStream(int device, unsigned flags, int priority);
  /// The stream that handle 0 names: it waits for all blocking streams, and they wait for it.
  StreamRef legacyStream(int device);
  /// Lets go of a stream; work it still holds runs all the same.
  void removeStream(const StreamRef& stream);

  /// Adds work to a stream, after `after` too. Faults are counted for `countable` work.
  WorkRef submit(Lock& lock, const StreamRef& stream, const char* what, Body body,
                 std::vector<WorkRef> after, bool countable);

  /// Runs what `work` needs, and waits for its completion.
  void await(Lock& lock, const WorkRef& work);
  /// Whether `work` is done. Every third query of unfinished work runs one piece of it.
  bool poll(Lock& lock, const WorkRef& work);
  /// Waits for everything in the device's streams.
  void awaitDevice(Lock& lock, int device);
  /// The newest work of a stream that is not done, or null.
  static WorkRef tail(const StreamRef& stream);
  /// A call of the host that may let work run: in random order, a seeded choice of it.
  void chance(Lock& lock);

  /// Ends the device's context with an error that every later call returns. Its work is dropped.
  void fail(int device, Status status, const std::string& reason);
  Status fault(int device) const { return faults_[device]; }

  /// Work not done yet.
  size_t unfinished() const;
  void notify() { changed_.notify_all(); }
  /// Drops all work and faults and starts the seeded order again.
  void reset(Lock& lock);
  void restartOrder() { random_ = Random(settings().seed); }
  uint64_t choose(uint64_t bound) { return random_.below(bound); }

  /// Counts an allocation, and says whether the settings want it to fail.
  bool allocationFails(uint64_t bytes);

 private:
  Engine() : random_(settings().seed) {}
  WorkRef needed(WorkRef work) const;
  bool advance(Lock& lock, const WorkRef& work);
  bool advancePeers(Lock& lock, const WorkRef& work);
  bool runPiece(Lock& lock, const WorkRef& head);
  void complete(const WorkRef& work);
  void drop(const StreamRef& stream);
  Body withFaults(int device, const char* what, Body body);
  void startBackground();
  void runBackground();
  bool runOverdue(Lock& lock);

  std::vector<StreamRef> streams_;
  StreamRef legacy_[16];
  Status faults_[16] = {};
  std::condition_variable changed_;
  Random random_;
  uint64_t queries_ = 0;
  bool background_ = false;
};

}  // namespace soft
