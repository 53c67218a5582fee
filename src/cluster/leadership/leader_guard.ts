import type { Bus, Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import { NobodyListensError, UsageError } from "../../core/errors.ts";
import type { ServedSettings } from "../../core/protocol/membership.ts";
import { settingsDifference } from "../../core/served_settings.ts";
import type { LeaderRecord } from "./leader_record.ts";

export interface LeaderGuardConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  /** Limit of an attempt to connect. Over a distance that takes five round trips. */
  readonly connectMs: number;
  /** Pause between two attempts. */
  readonly retryMs: number;
  /** The process of this leader has ended: its host refuses connections, or another process answers there. */
  readonly onEnded: (leader: string) => void;
  /** What this process serves; absent: it is not compared with what the leader serves. */
  readonly settings?: ServedSettings;
  /** The leader has another key or serves something else: this process is no candidate for its place. */
  readonly onStranger?: (reason: string) => void;
}

/**
 * A follower's connection to the leader. When it breaks, and the leader's host refuses the next one, the
 * leader's process is dead: nobody has to wait until its lease is over. A host that does not answer proves
 * nothing.
 */
export class LeaderGuard {
  readonly #config: LeaderGuardConfig;
  #record: LeaderRecord | null = null;
  #peer: Peer | null = null;
  #cancelRetry: () => void = () => {};

  constructor(config: LeaderGuardConfig) {
    this.#config = config;
  }

  /** Guards this leader from now on; null: none. */
  watch(record: LeaderRecord | null): void {
    const before = this.#record;
    this.#record = record;
    const isSame = record?.leader === before?.leader && record?.address === before?.address;
    if (isSame) return;
    this.#drop();
    if (record !== null && record.leader !== "") this.#connect(record);
  }

  close(): void {
    this.watch(null);
  }

  async #connect(guarded: LeaderRecord): Promise<void> {
    const { leader, address } = guarded;
    const { bus, clock, connectMs, retryMs, onEnded } = this.#config;
    const isGuarded = () => this.#record?.leader === leader && this.#record.address === address;
    let hasClosed = false;
    try {
      const peer = await bus.connect(address, {
        onClose: () => {
          hasClosed = true;
          if (this.#peer !== peer) return;
          this.#peer = null;
          if (isGuarded()) this.#connect(guarded); // a dead process is known at once
        },
      }, { timeoutMs: connectMs });
      if (!isGuarded()) return void peer.close();
      this.#peer = peer;
      const { data } = await peer.call("identify", { data: null }, { timeoutMs: connectMs });
      if (!isGuarded()) return;
      if (data.process !== leader) return onEnded(leader);
      const { settings } = this.#config;
      const difference = settings && data.settings &&
        settingsDifference(settings, data.settings, "this manager", `the leader at ${address}`);
      if (difference) this.#report(`${difference}: give all managers of a cluster the same`);
    } catch (error) {
      if (!isGuarded()) return;
      if (error instanceof UsageError) this.#report(error.message);
      if (error instanceof NobodyListensError) return onEnded(leader);
      if (hasClosed) return; // `onClose` connects again
      this.#drop();
      this.#cancelRetry = clock.after(retryMs, () => this.#connect(guarded));
    }
  }

  #report(difference: string): void {
    this.#config.onStranger?.(`${difference}, or this cluster another name`);
  }

  #drop(): void {
    this.#cancelRetry();
    const peer = this.#peer;
    this.#peer = null;
    peer?.close();
  }
}
