#include "emulator.h"

namespace emulator {
Checker* const checker = nullptr;
}
