// The kernel of a group: moves the bytes of its operations in threads of its own, as stream work.
#include "communicator.h"
#include "device.h"
#include "faults.h"
#include <algorithm>
#include <cstring>
#include <map>

namespace soft {

/// Up to here a send ends without its receive.
static const uint64_t EAGER_BYTES = 1 << 20;
static const uint64_t CHUNK_BYTES = 256 << 10;
/// What a step says of a kernel that has not ended.
static const int NOT_READY = 600;

std::atomic<int> &kernelsOnDevice = *new std::atomic<int>(0);

class Kernel {
public:
  Kernel(std::shared_ptr<Communicator> owner, std::vector<Operation> operations, int group)
      : owner(owner), operations(std::move(operations)), group(group) {
    owner->enqueuedKernels++;
  }
  ~Kernel() { owner->enqueuedKernels--; }

  /// Stream work: 0 once the kernel has ended.
  static int step(void *argument) {
    Kernel *kernel = (Kernel *)argument;
    if (!kernel->thread.joinable() && !kernel->begin()) {
      if (!kernel->owner->aborted) return NOT_READY; // no room on the device yet
    } else if (!kernel->isDone) {
      return NOT_READY;
    }
    if (kernel->thread.joinable()) kernel->thread.join();
    delete kernel;
    return 0; // after an abort as well: the event completes, and no data came
  }

private:
  /// False if the kernel does not fit on the device now, or its communicator is aborted.
  bool begin() {
    std::lock_guard<std::mutex> hold(owner->lock);
    const long slots = fault(KERNEL_SLOTS, owner->rank);
    if (owner->aborted || (slots > 0 && kernelsOnDevice >= slots)) return false;
    kernelsOnDevice++;
    owner->runningKernels++;
    thread = std::thread([this] { run(); });
    return true;
  }

  void run() {
    {
      Counted thread(counts.threads), kernel(counts.kernels);
      move();
    }
    kernelsOnDevice--;
    owner->runningKernels--;
    isDone = true; // the last use of this object: the next step deletes it
  }

  void move() {
    nap(KERNEL_MS, owner->rank, owner->aborted);
    if (group == fault(LATE_ERROR_GROUP, owner->rank)) {
      owner->failLate(REMOTE_ERROR, "injected late error");
      if (!fault(LATE_ERROR_ENDS, owner->rank)) spin();
      return;
    }
    // Operations with one peer in one direction go in order, all others at once.
    std::map<std::pair<int, bool>, std::vector<Operation>> lanes;
    for (const Operation &operation : operations) {
      lanes[{operation.peer, operation.isSend}].push_back(operation);
    }
    if (!moveToItself(lanes[{owner->rank, true}], lanes[{owner->rank, false}])) {
      spin();
      return;
    }
    std::vector<std::thread> threads;
    for (auto &[key, lane] : lanes) {
      if (key.first == owner->rank) continue;
      threads.emplace_back([this, &lane = lane] {
        Counted thread(counts.threads);
        for (const Operation &operation : lane) {
          const Io io = operation.isSend ? send(operation) : receive(operation);
          if (io == Io::GONE) return losePeer();
          if (io == Io::STOPPED) return;
        }
      });
    }
    for (std::thread &thread : threads) thread.join();
  }

  /// A rank sends to itself within one group. False if its sends are not those that it receives.
  bool moveToItself(const std::vector<Operation> &sends, const std::vector<Operation> &receives) {
    if (sends.size() != receives.size()) return false;
    for (size_t i = 0; i < sends.size(); i++) {
      if (sends[i].bytes != receives[i].bytes) return false;
      memmove(receives[i].address, sends[i].address, sends[i].bytes);
      counts.receivedBytes += sends[i].bytes;
    }
    return true;
  }

  Io send(const Operation &operation) {
    Socket &out = owner->links[operation.peer].out;
    if (operation.bytes > EAGER_BYTES) {
      uint64_t theirs = 0;
      const Io io = out.read(&theirs, sizeof theirs, owner->aborted);
      if (io != Io::FINE) return io;
      if (theirs != operation.bytes) return spin(); // sizes that differ hang, as they may in earnest
    }
    for (uint64_t done = 0; done < operation.bytes;) {
      const uint64_t bytes = std::min(CHUNK_BYTES, operation.bytes - done);
      if (isNetworkCut(out, bytes)) return spin();
      const Io io = out.write((const char *)operation.address + done, bytes, owner->aborted);
      if (io != Io::FINE) return io;
      done += bytes;
      const long rate = fault(MB_PER_S, owner->rank);
      if (rate > 0) nap(std::max(1L, (long)(bytes / 1000 / rate)), owner->aborted);
    }
    return Io::FINE;
  }

  Io receive(const Operation &operation) {
    Socket &in = owner->links[operation.peer].in;
    if (operation.bytes > EAGER_BYTES) {
      const Io io = in.write(&operation.bytes, sizeof operation.bytes, owner->aborted);
      if (io != Io::FINE) return io;
    }
    const Io io = in.read(operation.address, operation.bytes, owner->aborted);
    if (io == Io::FINE) counts.receivedBytes += operation.bytes;
    return io;
  }

  bool isNetworkCut(Socket &out, uint64_t bytes) {
    const int64_t sent = owner->sentBytes += bytes;
    const long breaksAfter = fault(BREAK_AFTER_BYTES, owner->rank);
    if (breaksAfter > 0 && sent > breaksAfter) out.breakOff();
    const long cutAfter = fault(CUT_AFTER_BYTES, owner->rank);
    return cutAfter > 0 && sent > cutAfter;
  }

  /// A kernel whose peer is gone never ends by itself.
  void losePeer() {
    if (!fault(SILENT_DEATH, owner->rank)) {
      owner->failLate(REMOTE_ERROR, "connection closed by the peer");
    }
    spin();
  }

  Io spin() {
    while (nap(1, owner->aborted)) {}
    return Io::STOPPED;
  }

  const std::shared_ptr<Communicator> owner;
  const std::vector<Operation> operations;
  const int group;
  std::atomic<bool> isDone{false};
  std::thread thread;
};

bool launchKernel(std::shared_ptr<Communicator> owner, void *stream,
                  std::vector<Operation> operations, int group) {
  Kernel *kernel = new Kernel(owner, std::move(operations), group);
  const int refusal =
      llumnixSoftwareDeviceEnqueue((uint64_t)stream, "NCCL kernel", Kernel::step, kernel);
  if (refusal == 0) return true;
  delete kernel;
  return false;
}

} // namespace soft
