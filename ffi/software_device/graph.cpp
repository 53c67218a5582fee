#include "graph.h"

#include <algorithm>

namespace soft {

void Capture::join(const StreamRef& stream) {
  if (std::find(streams.begin(), streams.end(), stream) == streams.end()) streams.push_back(stream);
}

void Capture::add(const StreamRef& stream, const char* what, Maker make, bool countable) {
  graph->nodes.push_back({what, std::move(make), stream->frontier, countable});
  stream->frontier = {graph->nodes.size() - 1};
}

bool Capture::unjoined() const {
  std::vector<bool> reached(graph->nodes.size(), false);
  std::vector<size_t> open = origin->frontier;
  while (!open.empty()) {
    const size_t node = open.back();
    open.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    const auto& after = graph->nodes[node].after;
    open.insert(open.end(), after.begin(), after.end());
  }
  return std::find(reached.begin(), reached.end(), false) != reached.end();
}

void Capture::finish() {
  finished = true;
  for (auto& stream : streams) {
    stream->capture = nullptr;
    stream->frontier.clear();
  }
}

std::vector<size_t> launchOrder(const Graph& graph, Engine& engine) {
  std::vector<size_t> order;
  std::vector<bool> placed(graph.nodes.size(), false);
  while (order.size() < graph.nodes.size()) {
    std::vector<size_t> ready;
    for (size_t node = 0; node < graph.nodes.size(); node++) {
      const auto& after = graph.nodes[node].after;
      const bool free = std::all_of(after.begin(), after.end(), [&](size_t i) { return placed[i]; });
      if (!placed[node] && free) ready.push_back(node);
    }
    // The newest branch first, unless the order is random: an edge that is missing shows at once.
    const bool random = settings().order == Order::Random;
    const size_t next = random ? ready[engine.choose(ready.size())] : ready.back();
    placed[next] = true;
    order.push_back(next);
  }
  return order;
}

}  // namespace soft
