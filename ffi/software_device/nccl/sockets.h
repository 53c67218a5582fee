// TCP on 127.0.0.1: sockets that are counted, and calls that end when a flag says so.
#pragma once
#include "counts.h"
#include "faults.h"
#include <cstddef>
#include <utility>

namespace soft {

typedef std::atomic<bool> Flag;

/// How a call on a socket ended.
enum class Io { FINE, GONE, STOPPED };

class Socket {
public:
  Socket() = default;
  explicit Socket(int fd) : fd(fd) { counts.sockets++; }
  Socket(Socket &&other) noexcept : fd(std::exchange(other.fd, -1)) {}
  Socket &operator=(Socket &&other) noexcept {
    std::swap(fd, other.fd);
    return *this;
  }
  ~Socket() { close(); }
  void close();
  /// Ends the connection in both directions; the peer notices.
  void breakOff();
  explicit operator bool() const { return fd >= 0; }

  Io read(void *into, size_t bytes, const Flag &stop);
  Io write(const void *from, size_t bytes, const Flag &stop);
  /// True if the peer has ended its side; false if it has not after `ms`.
  bool waitForEnd(long ms);
  /// The next connection of a listener; empty if stopped.
  Socket accept(const Flag &stop);

private:
  int fd = -1;
};

/// Listens at a free port.
Socket listenAnywhere(int *port);
/// Connects, and tries again while the port refuses, for RETRY_MS; empty if it failed or was stopped.
Socket dial(int port, int rank, const Flag &stop);
/// Waits; false if stopped meanwhile.
bool nap(long ms, const Flag &stop);
/// Waits as long as a fault says, and no longer once it says less; false if stopped meanwhile.
bool nap(Fault fault, int rank, const Flag &stop);

} // namespace soft
