import assert from "node:assert/strict";
import { passedSockets } from "../../../src/roles/systemd/passed_sockets.ts";

const PID = 42;

function environmentOf(variables: Record<string, string | undefined>) {
  const left = new Map(Object.entries(variables));
  const environment = {
    get: (name: string) => left.get(name) as string | undefined,
    delete: (name: string) => void left.delete(name),
  };
  return { environment, left };
}

Deno.test("LISTEN_FDS: sockets for another process, or none, are no business of this one", () => {
  for (const variables of [{}, { LISTEN_FDS: "1" }, { LISTEN_FDS: "1", LISTEN_PID: "1" }]) {
    const { environment, left } = environmentOf(variables);
    assert.deepEqual(passedSockets(environment, PID), []);
    assert.equal(left.size, 0); // children do not take them for theirs
  }
});

Deno.test("LISTEN_FDS: what is no number, or no socket that listens, is refused", () => {
  for (const count of ["0", "-1", "x", "1.5", "1000"]) {
    const { environment } = environmentOf({ LISTEN_FDS: count, LISTEN_PID: `${PID}` });
    assert.throws(() => passedSockets(environment, PID), /expected the number of sockets/);
  }
  const { environment } = environmentOf({ LISTEN_FDS: "64", LISTEN_PID: `${PID}` });
  assert.throws(
    () => passedSockets(environment, PID),
    /is no TCP socket that listens: the .socket/,
  );
});
