#pragma once
#include <cstdint>

namespace emulator {

/// Runs `body`, which may change stacks, in this thread. False if it touched memory that is not there;
/// then the rest of it is left out, and `address` is where.
bool runGuarded(void (*body)(), uint64_t& address);

}  // namespace emulator
