/** `serve --cluster` on two hosts, which share this machine here. Linux: processes are signalled. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { ClusterDoctorReport } from "../../src/cli/doctor/cluster/report.ts";
import { freePort } from "../free_port.ts";
import { type Admin, admin, assertSameStreams, isReady, runAll, small } from "./cluster.ts";
import type { Program } from "./harness.ts";
import { User } from "./roles.ts";
import { variedRequests } from "./streams.ts";

interface Examined {
  readonly code: number;
  readonly report: ClusterDoctorReport;
}

/** A host's `serve`, as far as the tests of one service know it. */
interface Host {
  readonly name: string;
  readonly program: Program;
  readonly url: string;
  readonly managerAddress: string;
  [Symbol.asyncDispose](): Promise<void>;
}

Deno.test("serve --cluster: two hosts make one service, which survives the kill of one", async () => {
  await using user = new User();
  const store = join(user.directory, "store");
  const ports = new Map(["a", "b"].map((name) => [name, freePort()]));
  const serve = (name: string): Host => {
    const port = ports.get(name)!;
    const program = user.start(
      ...["serve", ...small, "--cluster", `file:${store}`, "--host-name", name],
      ...["--host", "127.0.0.1", "--port", `${port}`, "--log-filename", ""],
    );
    const managerAddress = `unix:${join(user.directory, "llumnix", name, "manager.sock")}`;
    const url = `http://127.0.0.1:${port}`;
    return { name, program, url, managerAddress, [Symbol.asyncDispose]: () => Promise.resolve() };
  };
  /** Empty while its API server looks for the next leader. */
  const serving = async (host: Host) => {
    const { instances = [] } = await admin(host, "GET", "/instances", [503]) as Partial<Admin>;
    return instances.filter(({ state }) => state === "serving").map(({ id }) => id).sort();
  };
  const untilServing = (host: Host, count: number) =>
    host.program.waitUntil(
      `it knew ${count} instances`,
      async () => await isReady(host).catch(() => false) && (await serving(host)).length === count,
    );

  const examine = async (): Promise<Examined> => {
    const doctor = user.start("doctor", "--cluster", `file:${store}`, "--json");
    const { code } = await doctor.end();
    return { code, report: JSON.parse(doctor.stdout) };
  };

  const a = serve("a");
  await untilServing(a, 1);
  const b = serve("b");
  await untilServing(a, 2);
  await untilServing(b, 2);
  assert.match(b.program.stderr, /following .* which leads in epoch 1/);
  assert.match(b.program.stderr, /starting instance-1/); // on its own host, by the word of the other
  const requests = variedRequests(8, 300);
  const quiet = await runAll(a, requests);
  checkWell(await examine());

  // Manager, agent and API server of the first host die; its instance serves on.
  let events = 0;
  const streams = await runAll(b, requests, () => {
    if (++events === 500) a.program.signal("SIGKILL");
  });
  assertSameStreams(streams, quiet);
  await b.program.waitForLog(/leading in epoch 2/);
  await untilServing(b, 2);
  assertSameStreams(await runAll(b, requests), quiet);
  await b.program.waitUntil("the doctor found its agent, and none on the other host", async () => {
    const { report: { hosts, leader } } = await examine();
    assert.equal(leader.epoch, 2);
    const agents = hosts.map(({ host, agent, instances }) => `${host} ${agent} ${instances}`);
    return agents.join() === "a none 1,b present 1";
  });

  // The host comes back: its agent takes the instance that still runs there.
  const again = serve("a");
  await untilServing(again, 2);
  assert.match(again.program.stderr, /instance-0 runs here already/);
  assert.doesNotMatch(again.program.stderr, /starting instance/);
  assertSameStreams(await runAll(again, requests), quiet);

  // An orderly stop takes a host out of the service, and the other one serves on.
  await again.program.stopWell();
  await untilServing(b, 1);
  assert.deepEqual(await serving(b), ["instance-1"]);
  assertSameStreams(await runAll(b, requests), quiet);
  await b.program.stopWell();

  // An instance of the second host had its socket there, beside that of the manager which led at first.
  Deno.removeSync(join(user.directory, "llumnix", "a"));
});

/** Two hosts of one machine, and what the doctor finds there. */
function checkWell({ code, report }: Examined): void {
  const { problems, leader, hosts, addresses, paths, crossover } = report;
  assert.deepEqual([code, problems], [0, []]);
  assert.deepEqual([leader.state, leader.epoch, leader.failure], ["leads", 1, null]);
  assert.deepEqual(hosts.map(({ host, agent, slots }) => [host, agent, slots]), [
    ["a", "present", 1],
    ["b", "present", 1],
  ]);
  for (const { versions, clock } of hosts) {
    assert.equal(versions.length, 1);
    assert.ok(Math.abs(clock!.aheadMs) <= clock!.uncertaintyMs, JSON.stringify(clock));
  }
  const names = addresses.map(({ who, host }) => `${who} ${host}`).sort();
  assert.deepEqual(names, ["instance-0 a", "instance-1 b", "leader a", "manager b"]);
  assert.deepEqual(paths.map(({ from, to, failure }) => [from, to, failure]), [
    ["a", "b", null],
    ["b", "a", null],
  ]);
  assert.ok(crossover!.bytesPerToken > 0 && crossover!.prefillTokensPerSecond! > 0);
}
