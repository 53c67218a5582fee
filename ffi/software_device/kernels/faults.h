#pragma once
#include <cstdint>

namespace emulator {

/// What a kernel did: it touched memory that is not there, at `address`, or divided an integer by zero, which a GPU
/// would not notice.
struct Fault {
  bool isDivision;
  uint64_t address;
};

/// Runs `body`, which may change stacks, in this thread. False if it ended in `fault`; then the rest of it is left out.
bool runGuarded(void (*body)(), Fault& fault);

}  // namespace emulator
