// What the software device imitates, and which faults it injects. Read from the environment variable
// LLUMNIX_SOFTWARE_DEVICE on first use: "key=value" pairs between commas, for example
// "devices=2,memory=64M,order=random,seed=7". README.md lists the keys.
#pragma once
#include <cstdint>
#include <string>

namespace soft {

/// When work runs that the host has put into a stream.
enum class Order {
  Eager,   ///< As soon as it may: hides missing waits. For comparison.
  Late,    ///< Only when the host asks for its result, or after `progressMs`.
  Random,  ///< A seeded choice at each call of the host.
};

struct Settings {
  int devices = 1;
  uint64_t identity = 0;  ///< Devices of hosts with different identities have different UUIDs.
  uint64_t memoryBytes = uint64_t(2) << 30;  ///< Memory of each device.
  Order order = Order::Late;
  uint64_t seed = 1;
  int progressMs = 100;  ///< Work nobody asks for runs after this time. 0: it never does.
  bool poison = true;    ///< Fresh memory is full of 0xff bytes: NaN in every float format.
  int driverVersion = 13000;
  /// Library of the kernels: "plain", "checked" (for races), or a path.
  std::string kernels = "plain";

  // Faults. Counts start at the call that sets them; 0 means never.
  bool busy = false;                 ///< Another process holds the device: error 46.
  uint64_t failAllocation = 0;       ///< The n-th allocation of device memory fails.
  uint64_t failAllocationAbove = 0;  ///< Allocations of more bytes fail.
  uint64_t failWork = 0;             ///< The n-th copy, fill or launch ends in error 700.
  uint64_t hangWork = 0;             ///< The n-th copy, fill or launch never completes.
  /// A kernel that the device gets wrong: it does nothing, or ends in an error. Empty: none.
  std::string skipKernel, failKernel;
  int failCode = 700;  ///< The error of `failKernel` and `failWork`.
  /// The first process that comes to a fault of work makes this file; others with it go on. Empty: all fail.
  std::string faultOnce;
  /// 1: cuBLASLt's results are too large in the later rows of a product. 2: they are a little too large in all rows,
  /// so that a test sees which products it computed.
  int skewProducts = 0;
  int failCubin = 0;          ///< Machine code cannot be loaded: its error. 0: it can, on the device it is for.
  int failLoad = 0;           ///< Modules cannot be loaded: their error. 0: they can.
  int computeCapability = 90;  ///< 75 for 7.5.
};

/// The settings in force. The caller holds the engine's lock, or is the first call of the process.
Settings& settings();

/// Changes the settings that `text` names. Returns what is wrong with `text`, or an empty string;
/// nothing changes if anything is wrong.
std::string configure(const std::string& text);

/// Whether this process is the one to fail where `fail-work`, `hang-work` or `fail-kernel` says so.
bool takesFault();

/// What is wrong with the environment variable, or an empty string.
const std::string& environmentComplaint();

/// A seeded sequence of random numbers (xorshift64*).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull | 1) {}
  /// A number in [0, bound).
  uint64_t below(uint64_t bound) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return (state_ * 0x2545f4914f6cdd1dull >> 32) % bound;
  }

 private:
  uint64_t state_;
};

}  // namespace soft
