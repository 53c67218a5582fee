// What is alive in this process. Tests read it: after every fault it must be back at zero.
#pragma once
#include <atomic>
#include <cstdint>

namespace soft {

struct Counts {
  std::atomic<int64_t> communicators{0}, roots{0}, threads{0}, kernels{0}, sockets{0};
  /// Calls that the real library answers with undefined behaviour, or refuses as a breach of its
  /// rules: a handle that is gone, a call while another one is in progress, a group never begun.
  std::atomic<int64_t> misuses{0};
  /// Bytes that receives have put in place, ever.
  std::atomic<int64_t> receivedBytes{0};
};

extern Counts &counts;

/// Counts something for as long as it is alive.
class Counted {
public:
  explicit Counted(std::atomic<int64_t> &count) : count(count) { count++; }
  ~Counted() { count--; }
  Counted(const Counted &) = delete;

private:
  std::atomic<int64_t> &count;
};

} // namespace soft
