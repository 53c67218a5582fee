import assert from "node:assert/strict";
import { join } from "node:path";
import { managerAddress, takeManagerPlace } from "../../src/roles/manager_address.ts";
import { withDirectory } from "../temporary_directory.ts";

const env = (values: Record<string, string>) => ({ get: (name: string) => values[name] });

Deno.test("manager address: without one, the processes of a user find the same", () => {
  const uid = Deno.uid();
  const of = (values: Record<string, string>) => managerAddress(null, env(values));
  assert.equal(of({ XDG_RUNTIME_DIR: "/run/user/7" }), "unix:/run/user/7/llumnix/manager.sock");
  assert.equal(of({ TMPDIR: "/var/tmp" }), `unix:/var/tmp/llumnix-${uid}/manager.sock`);
  assert.equal(of({}), `unix:/tmp/llumnix-${uid}/manager.sock`);
  assert.equal(managerAddress("tcp:[::1]:80", env({})), "tcp:[::1]:80");
});

Deno.test("manager place: one at a time, in a directory of its user, and nothing is left of it", () =>
  withDirectory(async (directory) => {
    const address = `unix:${directory}/new/manager.sock`;
    const place = await takeManagerPlace(address);
    assert.equal(place.wasAbandoned, false);
    assert.deepEqual(place.survivors, []);
    assert.equal(Deno.statSync(join(directory, "new")).mode! & 0o777, 0o700);
    await assert.rejects(takeManagerPlace(address), /another manager serves at unix:.*new/);
    await place.release();
    assert.deepEqual([...Deno.readDirSync(join(directory, "new"))], []);
    await (await takeManagerPlace(address)).release();
  }));

Deno.test("manager place: sockets of instances that have ended are removed, others tell of instances", () =>
  withDirectory(async (directory) => {
    const path = (name: string) => join(directory, name);
    const alive = Deno.listen({ transport: "unix", path: path("instance-1.sock") });
    Deno.listen({ transport: "unix", path: path("instance-0.sock") }).close();
    Deno.listen({ transport: "unix", path: path("other.sock") }).close();
    const mine = Deno.listen({ transport: "unix", path: path("instance=mine.sock") });
    Deno.symlinkSync(path("gone"), path("instance-2.sock")); // as one that is removed just now
    const place = await takeManagerPlace(`unix:${path("manager.sock")}`);
    assert.equal(place.wasAbandoned, true);
    assert.deepEqual(place.survivors!.toSorted(), ["instance-1", "mine"]);
    const names = [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
    const kept = names.filter((name) => !name.startsWith("manager"));
    assert.ok(kept.includes("instance-1.sock") && !kept.includes("instance-0.sock"), `${names}`);
    alive.close();
    mine.close();
    await place.release();
    assert.deepEqual([...Deno.readDirSync(directory)], []);
  }));

Deno.test("manager place: whoever is about to end when it is released leaves no socket", () =>
  withDirectory(async (directory) => {
    const place = await takeManagerPlace(`unix:${directory}/manager.sock`);
    const ending = Deno.listen({ transport: "unix", path: join(directory, "instance-0.sock") });
    const ended = new Promise((resolve) => setTimeout(resolve, 100)).then(() => ending.close());
    await place.release();
    await ended;
    assert.deepEqual([...Deno.readDirSync(directory)], []);
  }));

Deno.test("manager place: a directory that is none, and one that cannot be made", () =>
  withDirectory(async (directory) => {
    Deno.writeTextFileSync(join(directory, "file"), "");
    await assert.rejects(
      takeManagerPlace(`unix:${directory}/file/manager.sock`),
      { name: "UsageError" },
    );
    await assert.rejects(
      takeManagerPlace("unix:/proc/nowhere/manager.sock"),
      /cannot use \/proc\/nowhere for sockets/,
    );
  }));

Deno.test("manager address: one that stands for all addresses of a host is refused", () => {
  for (const host of ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "0"]) {
    assert.throws(() => managerAddress(`tcp:${host}:80`, env({})), {
      name: "UsageError",
      message:
        /--manager-address tcp:.*: API servers and instances connect to this address; expected/,
    });
  }
});
