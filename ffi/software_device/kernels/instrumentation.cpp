// What kernels call that were compiled with -fsanitize=thread, in place of libtsan.
#include <cstring>

#include "races.h"

#define EXPORT extern "C" __attribute__((visibility("default")))
#define HERE __builtin_return_address(0)

using namespace emulator;

/// The reports since the last call, a line each, and their number.
EXPORT uint64_t llumnixRaceReports(char* text, uint64_t bytes) { return races().take(text, bytes); }

EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}

#define ACCESSES(bytes)                                            \
  EXPORT void __tsan_read##bytes(void* at) {                       \
    races().access(uint64_t(at), bytes, false, Kind::Plain, HERE); \
  }                                                                \
  EXPORT void __tsan_write##bytes(void* at) {                      \
    races().access(uint64_t(at), bytes, true, Kind::Plain, HERE);  \
  }                                                                \
  EXPORT void __tsan_unaligned_read##bytes(void* at) {             \
    races().access(uint64_t(at), bytes, false, Kind::Plain, HERE); \
  }                                                                \
  EXPORT void __tsan_unaligned_write##bytes(void* at) {            \
    races().access(uint64_t(at), bytes, true, Kind::Plain, HERE);  \
  }                                                                \
  EXPORT void __tsan_volatile_read##bytes(void* at) {              \
    races().volatileRead(uint64_t(at), bytes, HERE);               \
  }                                                                \
  EXPORT void __tsan_volatile_write##bytes(void* at) {             \
    races().volatileWrite(uint64_t(at), bytes, HERE);              \
  }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

EXPORT void __tsan_read_range(void* at, size_t bytes) {
  races().access(uint64_t(at), bytes, false, Kind::Plain, HERE);
}
EXPORT void __tsan_write_range(void* at, size_t bytes) {
  races().access(uint64_t(at), bytes, true, Kind::Plain, HERE);
}

// The build gives these names to the instrumented code's calls of memcpy and its kin.
EXPORT void* emulated_memcpy(void* to, const void* from, size_t bytes) {
  races().access(uint64_t(from), bytes, false, Kind::Plain, HERE);
  races().access(uint64_t(to), bytes, true, Kind::Plain, HERE);
  return std::memcpy(to, from, bytes);
}
EXPORT void* emulated_memmove(void* to, const void* from, size_t bytes) {
  races().access(uint64_t(from), bytes, false, Kind::Plain, HERE);
  races().access(uint64_t(to), bytes, true, Kind::Plain, HERE);
  return std::memmove(to, from, bytes);
}
EXPORT void* emulated_memset(void* to, int value, size_t bytes) {
  races().access(uint64_t(to), bytes, true, Kind::Plain, HERE);
  return std::memset(to, value, bytes);
}
