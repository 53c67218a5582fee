/**
 * What every implementation of `MigrationBackend` that copies through the host must do when the destination's
 * device hangs: fail for good, and keep the blocks, which the device may still write.
 */
import assert from "node:assert/strict";
import { UnavailableError } from "../../src/core/errors.ts";
import { configure, reset } from "../ffi/software_device/device.ts";
import { longTest } from "../long.ts";
import { ENDLESS_MS, watch, within } from "../patience.ts";
import type { BackendPair } from "./migration_backend.ts";

export interface HungDeviceUnderTest {
  readonly name: string;
  /**
   * With pools of at least two blocks. The destination's is a pool of the software device. `close` of the
   * pair ends the write that hangs, or what waits for it.
   */
  open(): Promise<BackendPair>;
  /** The pool counts a copy as hung after ten seconds. */
  readonly isLong?: boolean;
  /** Why the test cannot run here. */
  readonly skipped?: string;
}

/** Registers the test. */
export function testHungDevice({ name, open, isLong = false, skipped }: HungDeviceUnderTest): void {
  const register = isLong ? longTest : (definition: Deno.TestDefinition) => Deno.test(definition);
  const reason = skipped === undefined ? "" : ` (skipped: ${skipped})`;
  register({
    name: `${name} backend: a write to the device that hangs is a failure for good${reason}`,
    ignore: skipped !== undefined,
    fn: async () => {
      const pair = await open();
      try {
        configure("hang-work=1");
        await failsForGood(pair);
      } finally {
        await pair.close();
        reset();
      }
    },
  });
}

async function failsForGood(pair: BackendPair): Promise<void> {
  const { source, destination } = pair;
  await destination.backend.grant("m", [1]);
  const leaving = new AbortController();
  const sending = source.backend.send({
    migrationId: "m",
    destination: {
      instanceId: pair.instanceIdOf?.(destination) ?? "destination",
      address: pair.addressOf?.(destination) ?? "",
    },
    endpoint: destination.backend.endpoint,
    sourceBlocks: [1],
    destinationBlocks: [1],
    deadlineMs: pair.nowMs() + ENDLESS_MS,
  }, leaving.signal);
  sending.catch(() => {});
  const failure = await within(destination.backend.failed!, "the backend tells of it");
  assert.match(failure, /^a copy on device 0 has not ended in \d+ ms/);
  const revoking = watch(destination.backend.revoke("m"));
  leaving.abort();
  await assert.rejects(within(sending, "the transfer ends"), UnavailableError);
  assert.ok(!revoking.isSettled, "the device may still write the block");
}
