// One rank of a communicator: its state, its thread for what a call goes on doing, its connections.
#pragma once
#include "root.h"
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace soft {

/// ncclResult_t.
enum Result {
  SUCCESS,
  CUDA_ERROR,
  SYSTEM_ERROR,
  INTERNAL_ERROR,
  INVALID_ARGUMENT,
  INVALID_USAGE,
  REMOTE_ERROR,
  IN_PROGRESS,
};

/// One ncclSend or ncclRecv.
struct Operation {
  bool isSend;
  void *address;
  uint64_t bytes;
  int peer;
  void *stream;
};

class Communicator : public std::enable_shared_from_this<Communicator> {
public:
  Communicator(int ranks, int rank, bool isBlocking);
  ~Communicator();

  /// Each begins what a call does. The communicator goes on in its thread: IN_PROGRESS. With another result
  /// nothing has begun.
  Result init(const UniqueId &id);
  Result enqueue(std::vector<Operation> operations);
  Result finalize();
  /// Waits for what has begun, and says what came of it.
  Result outcome();
  /// Both return when nothing of the communicator runs any more.
  void abort();
  void destroy();

  /// ncclCommGetAsyncError: an error of a kernel, or the state of the last call.
  Result asyncError() const;
  /// SUCCESS if a call may be made now.
  Result usable();
  std::string reason() const;

  const int ranks, rank;
  const bool isBlocking;

private:
  friend class Kernel;
  struct Link {
    int port = 0;
    Socket out, in; // what this rank sends, what it receives
  };
  Result start(std::function<void()> job);
  void settle(Result result, const std::string &why = "");
  void failLate(Result result, const std::string &why);
  void runInit(const UniqueId &id);
  bool joinRing();
  void runGroup(const std::vector<Operation> &operations, int number);
  bool connect(int peer);
  void runFinalize();
  void release();

  void *const context; // of the thread that made the communicator
  Flag aborted{false};
  std::atomic<int> state{IN_PROGRESS}, late{SUCCESS};
  std::atomic<int> enqueuedKernels{0}, runningKernels{0};
  mutable std::mutex lock;
  std::string why;
  std::vector<Link> links;
  Socket listener, ringNext, ringPrevious; // the ring of the bootstrap
  std::thread job;
  int groups = 0;
  bool isFinalized = false;
  std::atomic<int64_t> sentBytes{0};
};

/// Kernels of this process on the device now; abort may wait for all of them.
extern std::atomic<int> &kernelsOnDevice;

/// Puts the kernel of a group into a stream; false if the device refuses it.
bool launchKernel(std::shared_ptr<Communicator> owner, void *stream,
                  std::vector<Operation> operations, int group);

} // namespace soft
