// What the driver calls: the table of kernels, and launches of their grids.
#include <chrono>
#include <cstdio>
#include <map>
#include <mutex>
#include <numeric>
#include <string>

#include "emulator.h"
#include "registry.h"

using namespace emulator;

namespace {

std::map<std::string, KernelInfo>& kernels() {
  static std::map<std::string, KernelInfo> all;
  return all;
}

}  // namespace

void emulator::registerKernel(const KernelInfo& info) { kernels()[info.name] = info; }

struct KernelLaunch {
  const KernelInfo* kernel;
  LaunchShape shape;
  std::vector<unsigned char> parameters;
  std::vector<unsigned> order;  ///< Of the blocks.
  size_t next = 0;
  uint64_t orderState;
  uint32_t number = 0;  ///< Of the launch in the process, from 1.
};

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const KernelInfo* llumnixKernel(const char* name) {
  const auto found = kernels().find(name);
  return found == kernels().end() ? nullptr : &found->second;
}

EXPORT KernelLaunch* llumnixLaunchBegin(const KernelInfo* kernel, const LaunchShape* shape,
                                        const void* parameters) {
  auto* launch = new KernelLaunch{kernel, *shape, {}, {}, 0, shape->seed * 0x9e3779b97f4a7c15ull, 0};
  const auto* bytes = static_cast<const unsigned char*>(parameters);
  launch->parameters.assign(bytes, bytes + kernel->parameterBytes);
  launch->order.resize(size_t(shape->grid[0]) * shape->grid[1] * shape->grid[2]);
  std::iota(launch->order.begin(), launch->order.end(), 0u);
  return launch;
}

EXPORT int llumnixLaunchStep(KernelLaunch* launch, char* complaint, uint64_t complaintBytes) {
  using Clock = std::chrono::steady_clock;
  static std::mutex oneAtATime;  // the emulator has the state of one block
  static uint32_t launches = 0;
  std::lock_guard lock(oneAtATime);
  auto& order = launch->order;
  orderState = launch->orderState;
  if (launch->next == 0) {
    launch->number = ++launches;
    for (size_t i = orderState != 0 ? order.size() : 0; i > 1; i--) {
      std::swap(order[i - 1], order[choose(i)]);
    }
  }
  block.launch = launch->number;
  const auto until = Clock::now() + std::chrono::milliseconds(2);
  End end = End::Done;
  std::string wrong;
  while (end == End::Done && launch->next < order.size() && Clock::now() < until) {
    const unsigned number = order[launch->next++];
    end = runBlock(*launch->kernel, launch->parameters.data(), launch->shape, number, wrong);
  }
  launch->orderState = orderState;
  const bool more = end == End::Done && launch->next < order.size();
  if (!more && checker != nullptr) checker->endLaunch(launch->kernel->name);
  std::snprintf(complaint, complaintBytes, "kernel %s, %s", launch->kernel->name, wrong.c_str());
  return end == End::Fault ? 2 : end == End::Failure ? 3 : more;
}

EXPORT void llumnixLaunchEnd(KernelLaunch* launch) { delete launch; }
