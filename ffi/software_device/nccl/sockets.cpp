#include "sockets.h"
#include "faults.h"
#include <arpa/inet.h>
#include <cerrno>
#include <chrono>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace soft {

/// How often a call looks at its flag.
static const int STOP_MS = 2;
static const int RETRY_PAUSE_MS = 20;

static sockaddr_in localAddress(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

static void setNoDelay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static bool isTransient(int error) { return error == EAGAIN || error == EINTR; }

static Io waitFor(int fd, short events, const Flag &stop) {
  for (;;) {
    if (stop) return Io::STOPPED;
    pollfd entry{fd, events, 0};
    const int found = poll(&entry, 1, STOP_MS);
    if (found > 0) return Io::FINE;
    if (found < 0 && errno != EINTR) return Io::GONE;
  }
}

void Socket::close() {
  if (fd < 0) return;
  ::close(fd);
  fd = -1;
  counts.sockets--;
}

void Socket::breakOff() { shutdown(fd, SHUT_RDWR); }

Io Socket::read(void *into, size_t bytes, const Flag &stop) {
  for (size_t done = 0; done < bytes;) {
    const Io io = waitFor(fd, POLLIN, stop);
    if (io != Io::FINE) return io;
    const ssize_t got = recv(fd, (char *)into + done, bytes - done, MSG_DONTWAIT);
    if (got > 0) done += got;
    else if (got == 0 || !isTransient(errno)) return Io::GONE;
  }
  return Io::FINE;
}

Io Socket::write(const void *from, size_t bytes, const Flag &stop) {
  for (size_t done = 0; done < bytes;) {
    const Io io = waitFor(fd, POLLOUT, stop);
    if (io != Io::FINE) return io;
    const ssize_t put =
        send(fd, (const char *)from + done, bytes - done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put > 0) done += put;
    else if (!isTransient(errno)) return Io::GONE;
  }
  return Io::FINE;
}

bool Socket::waitForEnd(long ms) {
  char rest[4096];
  for (long waited = 0; waited < ms; waited += STOP_MS) {
    pollfd entry{fd, POLLIN, 0};
    poll(&entry, 1, STOP_MS);
    const ssize_t got = recv(fd, rest, sizeof rest, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && !isTransient(errno))) return true;
  }
  return false;
}

Socket Socket::accept(const Flag &stop) {
  if (waitFor(fd, POLLIN, stop) != Io::FINE) return Socket();
  const int found = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
  if (found < 0) return Socket();
  setNoDelay(found);
  return Socket(found);
}

Socket listenAnywhere(int *port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Socket();
  Socket listener(fd);
  sockaddr_in address = localAddress(0);
  socklen_t length = sizeof address;
  if (bind(fd, (sockaddr *)&address, length) || listen(fd, 16)) return Socket();
  getsockname(fd, (sockaddr *)&address, &length);
  *port = ntohs(address.sin_port);
  return listener;
}

Socket dial(int port, int rank, const Flag &stop) {
  const sockaddr_in address = localAddress(port);
  for (long waited = 0; !stop; waited += RETRY_PAUSE_MS) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return Socket();
    Socket connection(fd);
    if (connect(fd, (const sockaddr *)&address, sizeof address) == 0) {
      setNoDelay(fd);
      return connection;
    }
    if (errno != ECONNREFUSED || waited >= fault(RETRY_MS, rank)) return Socket();
    connection.close();
    if (!nap(RETRY_PAUSE_MS, stop)) break;
  }
  return Socket();
}

/// By the clock: on a busy machine a sleep of one millisecond takes several.
template <class Limit> static bool napUntil(Limit limitMs, const Flag &stop) {
  using namespace std::chrono;
  const auto start = steady_clock::now();
  while (!stop && steady_clock::now() - start < milliseconds(limitMs())) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  return !stop;
}

bool nap(long ms, const Flag &stop) {
  return napUntil([ms] { return ms; }, stop);
}

bool nap(Fault delay, int rank, const Flag &stop) {
  return napUntil([=] { return fault(delay, rank); }, stop);
}

} // namespace soft
