#include "faults.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace soft {

static const char *const NAMES[FAULTS] = {
    "INIT_MS",         "RETRY_MS",          "CONNECT_MS",      "GROUP_MS",
    "KERNEL_MS",       "MB_PER_S",          "SILENT_DEATH",    "LATE_ERROR_GROUP",
    "LATE_ERROR_ENDS", "CUT_AFTER_BYTES",   "BREAK_AFTER_BYTES", "ABORT_MS",
    "ABORT_WAITS_PEER", "ABORT_WAITS_DEVICE", "KERNEL_SLOTS",  "DEVICE",
};
static const int RANKS = 8;
static const long UNSET = -1;

struct Values {
  std::atomic<long> ofAll[FAULTS], ofRank[FAULTS][RANKS];
  Values() { read(); }
  void read();
};

static long readEnvironment(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}

void Values::read() {
  char name[64];
  for (int f = 0; f < FAULTS; f++) {
    snprintf(name, sizeof name, "SOFT_NCCL_%s", NAMES[f]);
    ofAll[f] = readEnvironment(name, f == RETRY_MS ? 60000 : 0);
    for (int rank = 0; rank < RANKS; rank++) {
      snprintf(name, sizeof name, "SOFT_NCCL_%s_%d", NAMES[f], rank);
      ofRank[f][rank] = readEnvironment(name, UNSET);
    }
  }
}

static Values &values() {
  static Values &all = *new Values; // never destroyed: threads read it until the process ends
  return all;
}

long fault(Fault fault, int rank) {
  const long own = rank >= 0 && rank < RANKS ? values().ofRank[fault][rank].load() : UNSET;
  return own != UNSET ? own : values().ofAll[fault].load();
}

bool setFault(const char *name, int rank, long value) {
  if (rank < -1 || rank >= RANKS || value < 0) return false;
  for (int f = 0; f < FAULTS; f++) {
    if (strcmp(name, NAMES[f]) != 0) continue;
    if (rank >= 0) {
      values().ofRank[f][rank] = value;
    } else {
      values().ofAll[f] = value;
      for (auto &own : values().ofRank[f]) own = UNSET;
    }
    return true;
  }
  return false;
}

void resetFaults() { values().read(); }

} // namespace soft
