// Copies and fills: what is checked when they are submitted, and how they run.
#pragma once
#include <cstdint>
#include <vector>

#include "device.h"

namespace soft {

struct Copy {
  uint64_t to, from, bytes;
};

/// Ok, or InvalidValue if the bytes do not lie in one live region (memory of the host aside).
Status checkRange(const Memory& memory, uint64_t address, uint64_t bytes);
Status checkCopy(const Memory& memory, const Copy& copy);
/// Keeps the memory at `address` mapped as long as `region` lives. False if the address is one of the
/// device's at which no memory is (any more); other addresses are the host's, and `region` stays null.
bool pin(uint64_t address, uint64_t bytes, RegionRef& region);
/// Runs the copies one after the other, in pieces; a fault ends the device's context.
Maker copies(int device, std::vector<Copy> copies);
/// Fills `count` elements of `elementBytes` (1, 2 or 4), in rows `pitch` bytes apart.
Maker fill(int device, uint64_t to, uint32_t value, unsigned elementBytes, uint64_t count);

}  // namespace soft
