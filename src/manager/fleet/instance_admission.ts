import type { Peer } from "../../bus/bus.ts";
import { ConflictError, LlumnixError, UnavailableError, UsageError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type {
  InstanceRegistration,
  JoinRequest,
  ServedSettings,
} from "../../core/protocol/membership.ts";
import { settingsDifference } from "../../core/served_settings.ts";
import type { ManagedInstance } from "./managed_instance.ts";
import { Tombstones } from "./tombstones.ts";

/** Refused instances that are remembered; older ones ended long ago. */
const MAX_REFUSED = 1_000;

/** Decides which processes may join a manager as its instances. */
export class InstanceAdmission {
  readonly tombstones = new Tombstones();
  readonly #onRefused: (instanceId: InstanceId, reason: string) => void;
  readonly #refused = new Map<InstanceId, InstanceRegistration>();
  #isClosed = false;

  /** @param onRefused called once for each instance with other settings */
  constructor(onRefused: (instanceId: InstanceId, reason: string) => void) {
    this.#onRefused = onRefused;
  }

  /** Instances that were refused for their settings, and have not registered since. */
  get refused(): readonly InstanceRegistration[] {
    return [...this.#refused.values()];
  }

  /** No instance is admitted any more. */
  close(): void {
    this.#isClosed = true;
  }

  /**
   * @param holder the instance that has the name; undefined: none
   * @param isHosted the agent of a host has started it, by order of an earlier manager
   * @throws {LlumnixError} `not_found`: the manager has given up the instance, which should end
   * @throws {UsageError} another instance has its name
   * @throws {ConflictError} another instance that had its name is still ending
   * @throws {UnavailableError} the manager does not expect the instance
   */
  checkJoin(
    request: JoinRequest,
    holder: ManagedInstance | undefined,
    peer: Peer,
    isHosted = false,
  ): void {
    const { instanceId, isRunning = false, startedBy = "manager" } = request;
    const isHolder = holder?.isSameAs(request) === true;
    const isGivenUp = isHolder
      ? holder.isLost
      : this.tombstones.includes(request) || (holder && isRunning);
    if (isGivenUp) {
      throw new LlumnixError("not_found", `the manager has given up "${instanceId}"`);
    }
    if (holder && !isHolder && startedBy !== "manager") throw nameTakenError(holder);
    const isExpected = holder
      ? isHolder && (isRunning || holder.peer === null || holder.peer === peer)
      : isRunning || isHosted || startedBy !== "manager";
    if (!isExpected || this.#isClosed) {
      throw new UnavailableError(`the manager does not expect an instance "${instanceId}"`);
    }
  }

  /**
   * Checks that an instance serves what all others serve: the same request must get the same answer
   * from each. An instance that someone else started may serve anything.
   * @param expected the settings of all instances, and the name of their owner
   * @throws {UsageError} the instance serves something else
   */
  checkSettings(
    registration: InstanceRegistration,
    { settings, owner }: { readonly settings: ServedSettings; readonly owner: string },
  ): void {
    const { instanceId } = registration;
    const difference = settingsDifference(registration, settings, instanceId, owner);
    if (difference === null) return;
    const reason = `${difference}: all instances of a manager must have the same`;
    if (!this.#refused.has(instanceId)) this.#onRefused(instanceId, reason);
    this.#refused.set(instanceId, registration);
    if (this.#refused.size > MAX_REFUSED) {
      this.#refused.delete(this.#refused.keys().next().value!);
    }
    throw new UsageError(reason);
  }

  /** The instance has registered: it was started again with the settings of the others. */
  noteRegistered(instanceId: InstanceId): void {
    this.#refused.delete(instanceId);
  }
}

function nameTakenError({ instanceId, isLost, registration }: ManagedInstance): LlumnixError {
  if (isLost) {
    return new ConflictError(
      `the previous instance "${instanceId}" is still shutting down; retry in a few seconds`,
    );
  }
  const process = registration ? ` (process ${registration.pid})` : "";
  return new UsageError(
    `--instance-id ${instanceId}: an instance of the manager${process} has that name; choose ` +
      "another, or end that one first",
  );
}
