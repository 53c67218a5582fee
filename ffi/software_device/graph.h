// Graphs: work captured from streams, launched again and again.
#pragma once
#include <memory>
#include <thread>
#include <vector>

#include "streams.h"

namespace soft {

struct Node {
  const char* what;
  Maker make;
  std::vector<size_t> after;  ///< Nodes that run before this one.
  bool countable;
};

struct Graph {
  std::vector<Node> nodes;
};

/// A copy: later changes of the graph do not reach it.
struct ExecutableGraph {
  Graph graph;
  WorkRef lastLaunch;  ///< Launches of one executable graph run one after the other.
};

/// Between the begin and the end of a capture.
struct Capture {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  StreamRef origin;
  int mode = 0;  ///< 0 global, 1 thread-local, 2 relaxed: who may not make unsafe calls meanwhile.
  std::thread::id thread;
  bool invalid = false;
  bool finished = false;
  std::vector<StreamRef> streams;

  /// Makes the stream part of this capture.
  void join(const StreamRef& stream);
  void add(const StreamRef& stream, const char* what, Maker make, bool countable);
  /// Whether some branch does not lead back to the stream that began the capture.
  bool unjoined() const;
  /// Takes all streams out of the capture.
  void finish();
};

/// The nodes in an order that their edges allow: by choice of the engine's random sequence.
std::vector<size_t> launchOrder(const Graph& graph, Engine& engine);

}  // namespace soft
