/** Sockets that systemd opened for the service (sd_listen_fds(3), systemd.socket(5)). */
import { listeningPort, setInherited } from "../../../ffi/listening_sockets.ts";
import { UsageError } from "../../core/errors.ts";

const FIRST_DESCRIPTOR = 3;
/** More than a unit would ever have. */
const MAX_SOCKETS = 64;

type Environment = Pick<Deno.Env, "get" | "delete">;

/**
 * The descriptors that LISTEN_FDS announces, which no process that is started from now on inherits. The
 * variables are taken out of the environment.
 * @returns none unless they are for this process
 * @throws {UsageError} one is no TCP socket that listens
 */
export function passedSockets(environment: Environment = Deno.env, pid = Deno.pid): number[] {
  const listenPid = environment.get("LISTEN_PID"), count = environment.get("LISTEN_FDS");
  for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) environment.delete(name);
  if (count === undefined || Number(listenPid) !== pid) return [];
  const number = Number(count);
  if (!Number.isInteger(number) || number < 1 || number > MAX_SOCKETS) {
    throw new UsageError(`LISTEN_FDS=${count}: expected the number of sockets that systemd passes`);
  }
  const descriptors = Array.from({ length: number }, (_, i) => FIRST_DESCRIPTOR + i);
  for (const fd of descriptors) {
    if (listeningPort(fd) === null) {
      throw new UsageError(
        `descriptor ${fd}, which LISTEN_FDS announces, is no TCP socket that listens: the .socket ` +
          "unit needs ListenStream=PORT or ListenStream=ADDRESS:PORT, and Accept=no",
      );
    }
    setInherited(fd, false);
  }
  return descriptors;
}
