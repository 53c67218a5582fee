/** Ports for programs that a test starts. */

/** Systems give the ports from 32768 on to connections, and to listeners that name no port. */
const FIRST = 12_000, END = 32_000;

/**
 * A TCP port of the loopback interface that nobody listens on. The tests that run beside this one open
 * thousands of connections. One of them would take a port that the system gives away before the program
 * listens there; none of them gets this one.
 */
export function freePort(): number {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * (END - FIRST));
    try {
      using _listener = Deno.listen({ hostname: "127.0.0.1", port });
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}

/** Several of them, which differ. */
export function freePorts(count: number): number[] {
  const ports = new Set<number>();
  while (ports.size < count) ports.add(freePort());
  return [...ports];
}
