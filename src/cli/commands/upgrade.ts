/** `llumnix upgrade`: has running processes replace themselves by another executable. */
import { resolve } from "node:path";
import type { Peer } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { realClock, sleep } from "../../core/clock.ts";
import {
  LlumnixError,
  NobodyListensError,
  UnavailableError,
  UsageError,
} from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";
import type { Rollout, UpgradeRole, UpgradeStatus } from "../../core/protocol/upgrade.ts";
import { userDirectory } from "../../roles/manager_address.ts";
import { controlAddress, controlSockets } from "../../roles/upgrade/control_socket.ts";
import { serviceUnits } from "../../roles/upgrade/service_units.ts";
import type { UpgradeOptions } from "../upgrade/arguments.ts";

const STATUS_TIMEOUT_MS = 5_000;
/** Longer than a process gives its successor. */
const ORDER_TIMEOUT_MS = 300_000;
const POLL_MS = 200;
/** Time without progress after which the replacement of instances is not waited for. */
const STALL_MS = 300_000;

/** The manager first: agents and API servers find the new one by themselves. */
const order: readonly UpgradeRole[] = ["manager", "serve", "agent", "api-server"];

/** A process that serves, and the connection to it. */
interface Target {
  readonly peer: Peer;
  readonly status: UpgradeStatus;
}

/**
 * Upgrades the processes, one after the other, and waits until their instances are replaced.
 * @returns the exit code
 * @throws {LlumnixError} there is no process, or one was not upgraded: it serves on
 */
export async function runUpgrade({ binary, pid, list }: UpgradeOptions): Promise<number> {
  const path = binary === null ? null : checkedPath(binary);
  const targets = await findTargets(pid);
  try {
    if (list) {
      targets.forEach(({ status }) => console.log(describe(status)));
      for (const { name, command } of serviceUnits()) {
        console.log(`${name}, a service of systemd, which upgrades it: ${command}`);
      }
    }
    if (!list) { for (const target of targets) await upgradeOne(target, path); }
    return 0;
  } finally {
    await Promise.all(targets.map(({ peer }) => peer.close()));
  }
}

function checkedPath(binary: string): string {
  const path = resolve(binary);
  try {
    const { isFile, mode } = Deno.statSync(path);
    if (!isFile) throw new UsageError(`--binary ${binary} is no file`);
    if (mode !== null && (mode & 0o111) === 0) {
      throw new UsageError(`--binary ${binary} may not be executed (chmod +x ${binary})`);
    }
    return path;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`--binary ${binary}: ${fileProblem(error)}`);
  }
}

/** @throws {UnavailableError} nothing runs here, or not the process that was named */
async function findTargets(pid: number | null): Promise<Target[]> {
  const sockets = controlSockets().filter((socket) => pid === null || socket.pid === pid);
  const found = (await Promise.all(sockets.map(({ address }) => connect(address))))
    .filter((target) => target !== null);
  const serving = found.filter(({ status }) => !status.isReplaced);
  if (serving.length > 0) {
    return serving.sort((a, b) => order.indexOf(a.status.role) - order.indexOf(b.status.role));
  }
  const what = pid === null ? "no process of this user serves" : `process ${pid} does not serve`;
  throw new UnavailableError(
    `${what}: there is no control socket that answers in ${userDirectory()}.${unitsText()}`,
  );
}

/** Where the user may have to look instead: services of systemd run as users of their own. */
function unitsText(): string {
  const units = serviceUnits();
  if (units.length === 0) {
    return " For a service of systemd, put the new executable in the place of the old one, and use: " +
      "systemctl reload NAME";
  }
  const lines = units.map(({ name, command }) => `  ${name}: ${command}`);
  return " Services of systemd run as users of their own, and systemd upgrades them: put the new " +
    `executable in the place of the old one, then\n${lines.join("\n")}`;
}

/** Null: the process has ended and left its socket. */
async function connect(address: string): Promise<Target | null> {
  try {
    const peer = await openBus().connect(address, {}, { timeoutMs: STATUS_TIMEOUT_MS });
    return { peer, status: await statusOf(peer) };
  } catch (error) {
    if (error instanceof NobodyListensError) return null;
    throw error;
  }
}

async function statusOf(peer: Peer): Promise<UpgradeStatus> {
  const options = { timeoutMs: STATUS_TIMEOUT_MS };
  return (await peer.call("upgrade_status", { data: null }, options)).data;
}

async function upgradeOne({ peer, status }: Target, binary: string | null): Promise<void> {
  const name = `${status.role} (process ${status.pid})`;
  console.log(`${name}, ${status.version}: starting its successor`);
  const options = { timeoutMs: ORDER_TIMEOUT_MS };
  const { data } = await peer.call("upgrade", { data: { binary } }, options).catch((error) => {
    if (!(error instanceof LlumnixError)) throw error;
    throw new LlumnixError(error.kind, `${name} was not upgraded, and serves on: ${error.message}`);
  });
  console.log(`${name} is replaced by process ${data.pid}, ${data.version}`);
  if (status.role !== "api-server") await awaitRollout(data.pid);
}

/** @throws {UnavailableError} not all instances were replaced */
async function awaitRollout(pid: number): Promise<void> {
  const peer = await openBus().connect(controlAddress(pid), {});
  try {
    let last: Rollout | null = null;
    let changedMs = realClock.nowMs();
    while (last?.isOver !== true) {
      const { rollout } = await statusOf(peer);
      if (rollout !== null && rollout.replaced !== last?.replaced) {
        changedMs = realClock.nowMs();
        if (rollout.replaced > 0) {
          console.log(`replaced ${rollout.replaced} of ${rollout.total} instances`);
        }
      }
      last = rollout;
      if (realClock.nowMs() - changedMs > STALL_MS) {
        throw new UnavailableError(`process ${pid} is still replacing instances: see its log`);
      }
      if (last?.isOver !== true) await sleep(realClock, POLL_MS);
    }
    if (last.error === null) return;
    throw new UnavailableError(
      `${last.replaced} of ${last.total} instances were replaced, and the others serve on: ${last.error}`,
    );
  } finally {
    await peer.close();
  }
}

function describe({ role, pid, version, instances, rollout }: UpgradeStatus): string {
  const going = rollout !== null && !rollout.isOver
    ? `, replaced ${rollout.replaced} of ${rollout.total} instances so far`
    : "";
  return [
    `${role} (process ${pid}), ${version}${going}`,
    ...instances.map(({ instanceId, version }) =>
      `  ${instanceId}, ${version ?? "unknown version"}`
    ),
  ].join("\n");
}
