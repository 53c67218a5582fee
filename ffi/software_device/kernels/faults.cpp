#include "faults.h"

#include <setjmp.h>
#include <signal.h>

#include <mutex>

namespace emulator {
namespace {

thread_local sigjmp_buf* onFault = nullptr;
thread_local Fault fault;
/// What signals did before.
struct sigaction beforeSegv, beforeFpe;

void handle(int signal, siginfo_t* info, void* context) {
  struct sigaction& before = signal == SIGFPE ? beforeFpe : beforeSegv;
  if (onFault != nullptr) {
    fault = {signal == SIGFPE, uint64_t(info->si_addr)};
    siglongjmp(*onFault, 1);
  }
  if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, info, context);
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(signal);
  sigaction(signal, &before, nullptr);  // the instruction is tried again, and ends the process
}

void install() {
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, &beforeSegv);
  sigaction(SIGFPE, &action, &beforeFpe);
}

}  // namespace

bool runGuarded(void (*body)(), Fault& found) {
  static std::once_flag once;
  std::call_once(once, install);
  sigjmp_buf jump;
  onFault = &jump;
  const bool whole = sigsetjmp(jump, 1) == 0;
  if (whole) body();
  onFault = nullptr;
  found = fault;
  return whole;
}

}  // namespace emulator
