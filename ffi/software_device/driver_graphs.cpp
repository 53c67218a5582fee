// cu* functions: capture of streams into graphs, and their launch.
#include <algorithm>

#include "device.h"

using namespace soft;

namespace {

/// More nodes than a decode step has by a hundred times; bounds what a runaway capture holds.
constexpr size_t mostNodes = 1 << 20;

}  // namespace

CUDA_API cuStreamBeginCapture_v2(uint64_t handle, int mode) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  if (handle <= 1) return CaptureUnsupported;  // the legacy stream cannot be captured
  const StreamRef stream = call.stream(handle);
  if (stream == nullptr) return InvalidHandle;
  if (mode < 0 || mode > 2 || stream->capture != nullptr) return InvalidValue;
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->join(stream);
  stream->capture = capture;
  stream->frontier.clear();
  call.driver.captures.push_back(capture);
  return Ok;
}

CUDA_API cuStreamEndCapture(uint64_t handle, uint64_t* graph) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const StreamRef stream = call.stream(handle);
  if (stream == nullptr) return InvalidHandle;
  const auto capture = stream->capture;
  if (capture == nullptr || capture->origin != stream) return CaptureUnmatched;
  const bool unjoined = capture->unjoined();
  capture->finish();
  std::erase(call.driver.captures, capture);
  *graph = 0;
  if (capture->invalid) return CaptureInvalidated;
  if (unjoined) return CaptureUnjoined;
  if (capture->graph->nodes.size() > mostNodes) return OutOfMemory;
  *graph = call.driver.graphs.add(capture->graph);
  return Ok;
}

CUDA_API cuStreamIsCapturing(uint64_t handle, int* status) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const StreamRef stream = call.stream(handle);
  if (stream == nullptr) return InvalidHandle;
  *status = stream->capture == nullptr ? 0 : stream->capture->invalid ? 2 : 1;
  return Ok;
}

CUDA_API cuGraphInstantiateWithFlags(uint64_t* executable, uint64_t handle, uint64_t flags) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const auto graph = call.driver.graphs.find(handle);
  if (graph == nullptr) return InvalidHandle;
  if (flags != 0) return NotSupported;
  auto made = std::make_shared<ExecutableGraph>();
  made->graph = *graph;
  *executable = call.driver.executables.add(made);
  return Ok;
}

CUDA_API cuGraphLaunch(uint64_t handle, uint64_t streamHandle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const auto executable = call.driver.executables.find(handle);
  const StreamRef stream = call.stream(streamHandle);
  if (executable == nullptr || stream == nullptr) return InvalidHandle;
  if (stream->capture != nullptr) return NotSupported;  // a graph in a graph
  const Graph& graph = executable->graph;
  std::vector<WorkRef> after{executable->lastLaunch};
  WorkRef last = executable->lastLaunch;
  for (size_t node : launchOrder(graph, call.engine)) {
    const Node& one = graph.nodes[node];
    last = call.engine.submit(call.lock, stream, one.what, one.make(), after, one.countable);
    after.clear();
    if (call.outcome() != Ok) return call.outcome();
  }
  executable->lastLaunch = last;
  return Ok;
}

CUDA_API cuGraphGetNodes(uint64_t handle, uint64_t* nodes, size_t* count) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const auto graph = call.driver.graphs.find(handle);
  if (graph == nullptr) return InvalidHandle;
  if (nodes != nullptr) return NotSupported;  // only their number is told
  *count = graph->nodes.size();
  return Ok;
}

CUDA_API cuGraphDestroy(uint64_t handle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  return call.driver.graphs.remove(handle) == nullptr ? InvalidHandle : Ok;
}

CUDA_API cuGraphExecDestroy(uint64_t handle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  return call.driver.executables.remove(handle) == nullptr ? InvalidHandle : Ok;
}
