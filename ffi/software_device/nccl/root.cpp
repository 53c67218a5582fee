#include "root.h"
#include <cstring>
#include <map>
#include <thread>
#include <unistd.h>

namespace soft {

static const uint32_t MAGIC = 0x534e4343;

struct CheckIn {
  uint64_t nonce;
  int ranks, rank, port;
};

static void runRoot(Socket listener, uint64_t nonce) {
  Counted thread(counts.threads), root(counts.roots);
  static const Flag never{false};
  std::map<int, std::pair<Socket, int>> ranks;
  int expected = 0;
  while (expected == 0 || (int)ranks.size() < expected) {
    Socket connection = listener.accept(never);
    CheckIn hello;
    if (!connection) return;
    if (connection.read(&hello, sizeof hello, never) != Io::FINE || hello.nonce != nonce) continue;
    const bool fits = expected == 0 || hello.ranks == expected;
    if (!fits || ranks.count(hello.rank)) return; // the real one gives the id up, too
    expected = hello.ranks;
    ranks[hello.rank] = {std::move(connection), hello.port};
  }
  std::vector<int> ports;
  for (auto &[rank, there] : ranks) ports.push_back(there.second);
  for (auto &[rank, there] : ranks) there.first.write(ports.data(), ports.size() * sizeof(int), never);
}

bool makeRoot(UniqueId *id) {
  static std::atomic<uint64_t> made{0};
  memset(id, 0, sizeof *id);
  Socket listener = listenAnywhere(&id->port);
  if (!listener) return false;
  id->magic = MAGIC;
  id->nonce = (uint64_t)getpid() << 32 | ++made;
  std::thread(runRoot, std::move(listener), id->nonce).detach();
  return true;
}

bool isId(const UniqueId &id) { return id.magic == MAGIC; }

Io checkIn(const UniqueId &id, int rank, int ownPort, std::vector<int> &ports, const Flag &stop) {
  Socket connection = dial(id.port, rank, stop);
  if (!connection) return stop ? Io::STOPPED : Io::GONE;
  const CheckIn hello{id.nonce, (int)ports.size(), rank, ownPort};
  const Io io = connection.write(&hello, sizeof hello, stop);
  if (io != Io::FINE) return io;
  return connection.read(ports.data(), ports.size() * sizeof(int), stop);
}

} // namespace soft
