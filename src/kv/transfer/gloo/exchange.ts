import { NO_DESCRIPTOR, POLLIN, type Sockets } from "../../../../ffi/sockets.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";
import type {
  FailedPeer,
  MigrationGroup,
  MigrationGroupMember,
  MigrationId,
} from "../../../core/protocol/migration.ts";
import type { PoolDescription } from "../../pool/pool.ts";
import type { TransferLimits } from "../backend.ts";
import { WriteGrants } from "../write_grants.ts";
import type { Identity } from "./handshake.ts";
import { IncomingConnection, type TransferHead } from "./incoming_connection.ts";
import { type GlooEndpoint, OutgoingConnection } from "./outgoing_connection.ts";
import { PoolCursor, type PoolMemory, type TransferCursor } from "../pool_cursor.ts";
import { PoolPrefault } from "../pool_prefault.ts";
import type { Staging } from "./staging.ts";
import type { Waiter } from "./waiter.ts";

/** Most incoming connections; further ones are closed at once. */
const MAX_INCOMING = 1024;
/** Most of them that have not proved yet that they are members. One more closes the oldest of them. */
const MAX_STRANGERS = 256;
/** Pause after a failed accept, such as one for want of file descriptors. */
const ACCEPT_RETRY_MS = 100;

/** Settings of an instance's end of a group: data, which crosses to the transfer thread. */
export interface ExchangeConfig {
  readonly identity: Identity;
  /** The address is null too if the blocks are in the memory of a device. */
  readonly pool: PoolMemory;
  /** Set if the blocks are in the memory of a device: the thread opens the pool. */
  readonly devicePool?: PoolDescription;
  readonly numBlocks: number;
  /** IP address to listen at. */
  readonly host: string;
  /** Encrypt what members send to each other. */
  readonly isSealed: boolean;
  /** Most time until a connection can be used. */
  readonly initTimeoutMs: number;
}

/** A transfer to another member. */
export interface ExchangeTransfer {
  readonly migrationId: MigrationId;
  readonly destinationId: InstanceId;
  readonly sourceBlocks: readonly number[];
  readonly destinationBlocks: readonly number[];
  readonly limits: TransferLimits;
  readonly timeoutMs: number;
  readonly isBackground: boolean;
}

interface Outgoing {
  readonly member: MigrationGroupMember;
  readonly connection: OutgoingConnection;
  /** Called with null when the connection is ready, or with the reason when it closes before. */
  readonly waiting: ((reason: string | null) => void)[];
  /** Fails the transfer that is under way. */
  onLost: ((reason: string, isRefused: boolean) => void) | null;
}

/**
 * One instance's end of a group: a connection to each other member, for sending blocks, and one from each
 * other member, for receiving blocks. It runs in a thread of its own, which {@linkcode turn} blocks.
 */
export class GlooExchange {
  readonly port: number;
  readonly #sockets: Sockets;
  readonly #config: ExchangeConfig;
  readonly #listener: number;
  readonly #grants: WriteGrants;
  readonly #prefault: PoolPrefault;
  readonly #incoming = new Set<IncomingConnection>();
  readonly #outgoing = new Map<InstanceId, Outgoing>();
  #group: MigrationGroup | null = null;
  /** Until then no connection is accepted. */
  #acceptFromMs = 0;

  readonly #onDefect: (error: unknown) => void;
  readonly #staging: Staging | null;

  /**
   * @param onDefect told of an error that no code expected
   * @param staging for blocks in the memory of a device
   * @throws {Error} it cannot listen
   */
  constructor(
    sockets: Sockets,
    config: ExchangeConfig,
    onDefect: (error: unknown) => void,
    staging: Staging | null = null,
  ) {
    this.#sockets = sockets;
    this.#staging = staging;
    this.#onDefect = onDefect;
    this.#config = config;
    this.#grants = new WriteGrants(config.numBlocks);
    this.#prefault = new PoolPrefault(config.pool, config.numBlocks);
    const { fd, port } = sockets.listen(config.host);
    this.#listener = fd;
    this.port = port;
  }

  /**
   * Waits for events on the sockets and handles them. While blocks wait for their memory, it prepares a
   * piece of one instead of waiting.
   * @param wakeFd a descriptor that ends the wait when it becomes readable
   */
  turn(wakeFd: number): void {
    this.#prefault.step();
    // Before the wait: the end of a copy is no event of a socket.
    for (const connection of [...this.#incoming]) connection.onCopies();
    const waiters: Waiter[] = [...this.#incoming];
    for (const { connection } of this.#outgoing.values()) waiters.push(connection);
    const isPaused = performance.now() < this.#acceptFromMs;
    const interests = [
      { fd: wakeFd, events: POLLIN },
      { fd: isPaused ? NO_DESCRIPTOR : this.#listener, events: POLLIN },
    ];
    const deadlineMs = waiters.reduce(
      (least, one) => Math.min(least, one.deadlineMs),
      isPaused ? this.#acceptFromMs : Infinity,
    );
    const hasWork = !this.#prefault.isDone || this.isCopying ||
      waiters.some(({ hasBuffered }) => hasBuffered);
    const found = this.#sockets.poll(
      [...interests, ...waiters],
      hasWork ? 0 : deadlineMs - performance.now(),
    );
    if (found[1] !== 0) this.#accept();
    waiters.forEach((waiter, i) => {
      const events = found[interests.length + i];
      this.#handle(waiter, waiter.hasBuffered ? events | POLLIN : events);
    });
  }

  /** Whether the device copies blocks: then the next turn waits for nothing, and comes at once. */
  get isCopying(): boolean {
    return this.#staging?.isCopying === true;
  }

  /** Resolves when no copy of this migration, or of any, is under way; null if there is none now. */
  idle(migrationId?: MigrationId): Promise<unknown> | null {
    return this.#staging?.idle(migrationId) ?? null;
  }

  /** A defect in handling what a peer sent costs that peer its connection, and the others nothing. */
  #handle(waiter: Waiter, events: number): void {
    try {
      if (events !== 0) waiter.onReady(events);
      else if (waiter.deadlineMs <= performance.now()) waiter.onDeadline();
    } catch (error) {
      this.#onDefect(error);
      waiter.close(`it failed: ${(error as Error).message}`);
    }
  }

  /**
   * Joins a group: connects to all other members. Open connections to members stay.
   * @param done called with the members to which no connection could be made
   */
  join(group: MigrationGroup, done: (failures: readonly FailedPeer[]) => void): void {
    this.#group = group;
    for (const connection of [...this.#incoming]) connection.onGroup();
    for (const { member, connection } of [...this.#outgoing.values()]) {
      if (!isMember(group, member)) connection.close(`${member.instanceId} left the group`);
    }
    const failures: FailedPeer[] = [];
    const others = group.members.filter(({ instanceId }) =>
      instanceId !== this.#config.identity.instanceId
    );
    let numOpen = others.length;
    if (numOpen === 0) return done(failures);
    for (const { instanceId } of others) {
      this.#connect(instanceId, this.#config.initTimeoutMs, (reason) => {
        if (reason !== null) failures.push({ instanceId, reason });
        if (--numOpen === 0) done(failures);
      });
    }
  }

  grant(migrationId: MigrationId, blocks: readonly number[]): void {
    this.#grants.grant(migrationId, blocks);
  }

  /** Makes memory resident for blocks that may never have been written, during the next turns. */
  prepare(blocks: readonly number[]): void {
    this.#prefault.add(blocks);
  }

  /** Once this has returned, this migration begins no write any more; {@linkcode idle} waits for the last. */
  revoke(migrationId: MigrationId): void {
    this.#grants.revoke(migrationId);
    for (const connection of [...this.#incoming]) connection.revoke(migrationId);
  }

  /**
   * Sends blocks.
   * @param done called once: with null when all blocks are in place, else with the reason
   * @returns a function that aborts the transfer
   */
  send(transfer: ExchangeTransfer, done: (reason: string | null) => void): () => void {
    const deadlineMs = performance.now() + transfer.timeoutMs;
    const { destinationId } = transfer;
    let isOver = false;
    const finish = (reason: string | null) => {
      if (isOver) return;
      isOver = true;
      done(reason);
    };
    const attempt = (mayRepeat: boolean) => {
      const wasOpen = this.#outgoing.get(destinationId)?.connection.isReady === true;
      this.#connect(destinationId, deadlineMs - performance.now(), (reason) => {
        if (isOver) return;
        if (reason !== null) return finish(reason);
        this.#sendOver(
          this.#outgoing.get(destinationId)!,
          transfer,
          deadlineMs,
          (reason, isFinal) => {
            // An idle connection may have been lost unnoticed: try another. Sending twice does no harm.
            const repeats = !isFinal && wasOpen && mayRepeat && !isOver;
            if (repeats && performance.now() < deadlineMs) attempt(false);
            else finish(reason);
          },
        );
      });
    };
    attempt(true);
    return () => {
      finish("the transfer was aborted");
      this.#outgoing.get(destinationId)?.connection.close("the transfer was aborted");
    };
  }

  close(): void {
    for (const { connection } of [...this.#outgoing.values()]) connection.close("it is closed");
    for (const connection of [...this.#incoming]) connection.close();
    this.#sockets.close(this.#listener);
  }

  #accept(): void {
    let fd = this.#sockets.accept(this.#listener);
    // The connection still waits, so that every poll would return at once.
    if (fd < 0) this.#acceptFromMs = performance.now() + ACCEPT_RETRY_MS;
    for (; fd >= 0; fd = this.#sockets.accept(this.#listener)) {
      if (this.#incoming.size >= MAX_INCOMING) {
        this.#sockets.close(fd);
        continue;
      }
      const strangers = [...this.#incoming].filter(({ peer }) => peer === null);
      if (strangers.length >= MAX_STRANGERS) strangers[0].close();
      const { identity, isSealed, numBlocks, initTimeoutMs } = this.#config;
      const connection = new IncomingConnection(
        {
          sockets: this.#sockets,
          identity,
          isSealed,
          numBlocks,
          makeCursor: (head) => this.#destinationCursor(head),
          grants: this.#grants,
          group: () => this.#group?.secret ?? null,
          onWelcome: (welcome) => this.#replace(welcome),
          onClose: (closed) => this.#incoming.delete(closed),
        },
        fd,
        performance.now() + initTimeoutMs,
      );
      this.#incoming.add(connection);
    }
  }

  #destinationCursor({ migrationId, destinationBlocks, limits }: TransferHead): TransferCursor {
    return this.#staging?.destination(migrationId, destinationBlocks, limits) ??
      new PoolCursor(this.#config.pool, destinationBlocks, limits);
  }

  /** A member that connects again no longer uses its former connection. */
  #replace(welcome: IncomingConnection): void {
    for (const other of [...this.#incoming]) {
      if (other !== welcome && other.peer === welcome.peer) other.close();
    }
  }

  /** Calls `done` with null when a connection is ready, else with the reason. */
  #connect(to: InstanceId, timeoutMs: number, done: (reason: string | null) => void): void {
    const open = this.#outgoing.get(to);
    if (open?.connection.isReady) return done(null);
    if (open) return void open.waiting.push(done);
    const group = this.#group;
    const member = group?.members.find(({ instanceId }) => instanceId === to);
    if (!group || !member) return done(`${to} is not in the migration group`);
    const endpoint = endpointOf(member);
    if (endpoint === null) {
      return done(`the endpoint of ${to} is not one of gloo: expected a host and a port`);
    }
    try {
      this.#open(group, member, endpoint, timeoutMs).waiting.push(done);
    } catch (error) {
      done(`${to} at ${endpoint.host}:${endpoint.port}: ${(error as Error).message}`);
    }
  }

  /** @throws {Error} the address is invalid, or no socket could be made */
  #open(
    group: MigrationGroup,
    member: MigrationGroupMember,
    endpoint: GlooEndpoint,
    timeoutMs: number,
  ): Outgoing {
    const { identity, isSealed, initTimeoutMs } = this.#config;
    const { instanceId } = member;
    const { host, port } = endpoint;
    const { secret, generation, members } = group;
    const rank = members.find((one) => one.instanceId === identity.instanceId)?.rank ?? -1;
    const outgoing: Outgoing = {
      member,
      waiting: [],
      onLost: null,
      connection: new OutgoingConnection({
        sockets: this.#sockets,
        endpoint: { host, port },
        secret,
        hello: { generation, rank, from: identity, to: instanceId, isSealed },
        onReady: () => settle(null),
        onClose: (why, isRefused) => {
          const reason = `${instanceId} at ${host}:${port}: ${why}`;
          if (this.#outgoing.get(instanceId) === outgoing) this.#outgoing.delete(instanceId);
          settle(reason);
          outgoing.onLost?.(reason, isRefused);
        },
      }, performance.now() + Math.min(timeoutMs, initTimeoutMs)),
    };
    const settle = (reason: string | null) => {
      for (const done of outgoing.waiting.splice(0)) done(reason);
    };
    this.#outgoing.set(instanceId, outgoing);
    return outgoing;
  }

  /** @param done called with the reason, and whether another attempt would fail alike */
  #sendOver(
    outgoing: Outgoing,
    { migrationId, sourceBlocks, destinationBlocks, limits, isBackground }: ExchangeTransfer,
    deadlineMs: number,
    done: (reason: string | null, isFinal: boolean) => void,
  ): void {
    if (outgoing.onLost) return done("another transfer is under way", true);
    outgoing.onLost = done;
    // Made after the head was sent, so that both ends make their cursors at the same time.
    const cursor = () =>
      this.#staging?.source(migrationId, sourceBlocks, limits) ??
        new PoolCursor(this.#config.pool, sourceBlocks, limits);
    const onDone = () => {
      outgoing.onLost = null;
      done(null, true);
    };
    outgoing.connection.send({
      head: { migrationId, destinationBlocks, limits, isBackground },
      makeCursor: cursor,
      deadlineMs,
      onDone,
    });
  }
}

/** Null if the endpoint is not of this kind of backend. */
function endpointOf({ endpoint }: MigrationGroupMember): GlooEndpoint | null {
  const { host, port } = endpoint;
  return typeof host === "string" && typeof port === "number" ? { host, port } : null;
}

function isMember({ members }: MigrationGroup, member: MigrationGroupMember): boolean {
  const { host, port } = member.endpoint;
  return members.some(({ instanceId, endpoint }) =>
    instanceId === member.instanceId && endpoint.host === host && endpoint.port === port
  );
}
