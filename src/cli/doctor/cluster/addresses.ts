/** The addresses that a cluster's processes tell each other, tried from here. */
import { parseAddress } from "../../../bus/address.ts";
import type { Address, Bus } from "../../../bus/bus.ts";
import { type Examined, examineProcess } from "../../../bus/clock_difference.ts";
import { LlumnixError } from "../../../core/errors.ts";
import { isLoopback } from "../../../core/hosts.ts";
import type { AddressReport } from "./report.ts";

/** An address and whose it is. */
export interface Target extends Pick<AddressReport, "who" | "host"> {
  readonly address: Address;
}

/** Most addresses that are tried. */
export const MAX_ADDRESSES = 256;
const AT_ONCE = 16;
/** Limit of a connection, and of each question; a busy host may take seconds. */
const TIMEOUT_MS = 5_000;

/**
 * Connects to each address, and asks who is there. Takes five seconds for each sixteen of them that do not answer.
 * @param targets at most {@linkcode MAX_ADDRESSES}
 */
export async function examineAddresses(
  bus: Bus,
  targets: readonly Target[],
): Promise<AddressReport[]> {
  const reports: AddressReport[] = [];
  const next = targets.entries();
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (const [i, target] of next) reports[i] = await examineAddress(bus, target);
  }));
  return reports;
}

async function examineAddress(bus: Bus, target: Target): Promise<AddressReport> {
  const common = { ...target, isLoopback: isLoopbackAddress(target.address) };
  try {
    const { process, clock } = await ask(bus, target.address);
    return {
      ...common,
      host: target.host ?? process.hostName ?? null,
      process,
      clock,
      failure: null,
    };
  } catch (error) {
    if (!(error instanceof LlumnixError)) throw error;
    return { ...common, process: null, clock: null, failure: error.message };
  }
}

async function ask(bus: Bus, address: Address): Promise<Examined> {
  const peer = await bus.connect(address, {}, { timeoutMs: TIMEOUT_MS });
  try {
    return await examineProcess(peer, { timeoutMs: TIMEOUT_MS });
  } finally {
    peer.close(); // an end that hangs is not waited for
  }
}

function isLoopbackAddress(address: Address): boolean {
  try {
    const parsed = parseAddress(address);
    return parsed.scheme === "tcp" && isLoopback(parsed.host);
  } catch {
    return false; // connecting says what is wrong with it
  }
}
