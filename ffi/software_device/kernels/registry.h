// Table of the kernels of a library, filled as it is loaded: REGISTER_KERNEL(name) behind each of them.
#pragma once
#include <cstring>
#include <utility>
#include <vector>

#include "interface.h"

namespace emulator {

void registerKernel(const KernelInfo& kernel);

template <class T>
T parameter(const unsigned char* parameters, const KernelParameter& place) {
  T value;
  __builtin_memcpy(&value, parameters + place.offset, sizeof value);
  return value;
}

/// Places of the parameters by the rules of C: each at the next multiple of its alignment.
template <auto kernel>
struct Registered;

template <class... Parameters, void (*kernel)(Parameters...)>
struct Registered<kernel> {
  static inline std::vector<KernelParameter> places;

  template <size_t... i>
  static void call(const unsigned char* parameters, std::index_sequence<i...>) {
    kernel(parameter<Parameters>(parameters, places[i])...);
  }
  static void run(const unsigned char* parameters) {
    call(parameters, std::index_sequence_for<Parameters...>{});
  }
  static bool add(const char* name) {
    uint64_t end = 0;
    auto place = [&](uint64_t bytes, uint64_t alignment) {
      const uint64_t offset = (end + alignment - 1) / alignment * alignment;
      places.push_back({offset, bytes});
      end = offset + bytes;
    };
    (place(sizeof(Parameters), alignof(Parameters)), ...);
    registerKernel({name, places.data(), places.size(), end, run});
    return true;
  }
};

}  // namespace emulator

#define REGISTER_KERNEL(name) \
  static const bool registered_##name = emulator::Registered<name>::add(#name);
