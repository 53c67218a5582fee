import { POLLFAILED, POLLHUP, POLLIN, POLLOUT, type Sockets } from "../../../../ffi/sockets.ts";
import { setPreempting } from "../../../../ffi/thread_policy.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import type { TransferLimits } from "../backend.ts";
import { PIECE_BYTES } from "../pace.ts";
import type { WriteGrants } from "../write_grants.ts";
import { ConnectionLost } from "./channel.ts";
import { FrameStream, MAX_FRAME_BYTES, MAX_GREETING_BYTES } from "./frame_stream.ts";
import { type Hello, type Identity, readHello, refusalOf, type SignedHello } from "./handshake.ts";
import { connectionKeys, isProof, prove } from "./keys.ts";
import type { TransferCursor } from "../pool_cursor.ts";
import type { Waiter } from "./waiter.ts";

/** Buffer for bytes that are read and dropped. */
const DISCARD_BYTES = 256 << 10;
/** Most time until the other end closes a connection that has failed or was refused. */
const DISCARD_MS = 5_000;

/** Frame `transfer`; the bytes of its blocks follow. */
export interface TransferHead {
  readonly migrationId: MigrationId;
  readonly destinationBlocks: readonly number[];
  /** The limits of the rounds, which determine the order of the bytes. */
  readonly limits: TransferLimits;
  /** Both ends leave the cores to running steps. */
  readonly isBackground: boolean;
}

export interface IncomingConfig {
  readonly sockets: Sockets;
  readonly identity: Identity;
  /** Encrypts what follows the greeting. */
  readonly isSealed: boolean;
  /** The places of blocks that a migration may write. @throws {UnavailableError} no memory to lock */
  readonly makeCursor: (head: TransferHead) => TransferCursor;
  /** Of the pool. */
  readonly numBlocks: number;
  readonly grants: WriteGrants;
  /** Secret of the group that this instance is in; null before it has joined one. */
  readonly group: () => string | null;
  readonly onWelcome: (connection: IncomingConnection) => void;
  readonly onClose: (connection: IncomingConnection) => void;
}

/**
 * A connection over which another instance writes blocks of this one, one transfer after the other,
 * straight from the socket into the pool. A transfer's grants are checked when it begins. A revocation
 * ends the transfer at once: bytes that still arrive are read and dropped.
 */
export class IncomingConnection implements Waiter {
  readonly fd: number;
  /** By then the other end must be welcome; by then too it must have closed a failed connection. */
  deadlineMs: number;
  readonly #config: IncomingConfig;
  readonly #stream: FrameStream;
  #greeting: { readonly signed: SignedHello; readonly hello: Hello } | null = null;
  #isWelcome = false;
  #transfer: { readonly migrationId: MigrationId; readonly cursor: TransferCursor } | null = null;
  #isDiscarding = false;
  #isClosed = false;

  constructor(config: IncomingConfig, fd: number, deadlineMs: number) {
    this.fd = fd;
    this.deadlineMs = deadlineMs;
    this.#config = config;
    this.#stream = new FrameStream(config.sockets, fd);
  }

  get events(): number {
    if (this.#transfer?.cursor.isReady === false) return 0; // what arrives waits in the socket
    return this.#stream.hasUnsent ? POLLIN | POLLOUT : POLLIN;
  }

  get hasBuffered(): boolean {
    return this.#stream.channel.hasBuffered && !this.#isDiscarding && this.events !== 0;
  }

  /** The instance at the other end, once it is welcome: until then it may be a stranger. */
  get peer(): string | null {
    return this.#isWelcome ? this.#greeting!.hello.from.instanceId : null;
  }

  onReady(events: number): void {
    if (this.#isClosed) return;
    try {
      if (events & POLLFAILED) throw new ConnectionLost("the connection broke");
      if (events & (POLLIN | POLLHUP)) this.#read();
      this.#stream.flush();
    } catch (error) {
      if (!(error instanceof ConnectionLost)) throw error;
      this.close();
    }
  }

  /** Ends a transfer whose last bytes a device has now copied. Called before each wait. */
  onCopies(): void {
    if (this.#transfer?.cursor.remainingBytes === 0) this.onReady(POLLIN);
  }

  onDeadline(): void {
    if (this.#greeting === null || this.#isDiscarding) return this.close();
    this.#refuse(`${this.#config.identity.instanceId} is not in that group`);
  }

  /** Called when this instance has joined another group. */
  onGroup(): void {
    if (this.#greeting !== null && !this.#isWelcome && !this.#isDiscarding) this.#greet();
  }

  /** Once this has returned, this migration writes nothing any more. */
  revoke(migrationId: MigrationId): void {
    if (this.#transfer?.migrationId !== migrationId) return;
    this.#fail(`migration ${migrationId} was revoked`);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#endTransfer();
    this.#config.sockets.close(this.fd);
    this.#config.onClose(this);
  }

  #read(): void {
    if (this.#isDiscarding) return this.#discard();
    if (this.#transfer !== null) return this.#readBlocks();
    const frame = this.#stream.receive(this.#isWelcome ? MAX_FRAME_BYTES : MAX_GREETING_BYTES);
    if (frame === null) return;
    const greeting = frame.type === "hello" && this.#greeting === null
      ? readHello(frame.data)
      : null;
    const head = frame.type === "transfer" && this.#isWelcome
      ? readHead(frame.data, this.#config.numBlocks)
      : null;
    if (greeting !== null) {
      this.#greeting = greeting;
      this.#greet();
    } else if (head !== null) this.#begin(head);
    else {throw new ConnectionLost(
        `the other end sent a malformed or unexpected ${frame.type} frame`,
      );}
  }

  /** A peer of a group that this instance has not joined yet waits until it does, or the deadline. */
  #greet(): void {
    const { hello, signed: { statement, proof } } = this.#greeting!;
    const { identity, isSealed } = this.#config;
    const secret = this.#config.group();
    if (secret === null) return;
    const nonces = { dialer: this.#stream.peerNonce!, listener: this.#stream.nonce };
    const keys = connectionKeys(secret, nonces);
    if (!isProof(keys, "dialer", statement, proof)) return;
    const refusal = refusalOf(hello, identity, isSealed);
    if (refusal !== null) return this.#refuse(refusal);
    this.#isWelcome = true;
    this.deadlineMs = Infinity;
    this.#stream.send("welcome", { proof: prove(keys, "listener", statement) });
    this.#stream.flush();
    if (isSealed) this.#stream.seal({ sends: keys.fromListener, receives: keys.fromDialer });
    this.#config.onWelcome(this);
  }

  #refuse(message: string): void {
    this.#stream.send("refused", { message });
    this.#discardRest();
  }

  #begin(head: TransferHead): void {
    const { grants, makeCursor } = this.#config;
    const { migrationId, destinationBlocks, isBackground } = head;
    setPreempting(!isBackground);
    try {
      grants.check(migrationId, destinationBlocks);
      this.#transfer = { migrationId, cursor: makeCursor(head) };
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      return this.#fail(error.message);
    }
    this.#readBlocks();
  }

  #readBlocks(): void {
    try {
      this.#moveBlocks(this.#transfer!.cursor);
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      this.#fail(error.message);
    }
  }

  /** @throws {UnavailableError} the device failed */
  #moveBlocks(cursor: TransferCursor): void {
    if (cursor.remainingBytes > 0 && cursor.isReady) {
      const bytes = this.#stream.channel.readInto(cursor.places());
      if (bytes === 0) throw new ConnectionLost("the other end closed the connection");
      if (bytes > 0) cursor.advance(bytes);
    }
    this.#stream.channel.expect(Math.min(cursor.remainingBytes, PIECE_BYTES));
    if (!cursor.isSettled) return;
    this.#endTransfer();
    this.#stream.send("done", null);
  }

  /** Preempts others again: the next transfer may be a last stage, whose head must wake this thread. */
  #endTransfer(): void {
    if (this.#transfer === null) return;
    setPreempting(true);
    this.#transfer.cursor.release();
    this.#transfer = null;
  }

  #fail(message: string): void {
    this.#endTransfer();
    this.#stream.channel.expect(1);
    this.#stream.send("failed", { message });
    this.#discardRest();
  }

  /** Lets the other end close, which has been told why: closing first could destroy that message. */
  #discardRest(): void {
    this.#isDiscarding = true;
    this.deadlineMs = performance.now() + DISCARD_MS;
    this.#stream.flush();
  }

  #discard(): void {
    const bytes = this.#config.sockets.read(this.fd, new Uint8Array(DISCARD_BYTES));
    if (bytes === 0) throw new ConnectionLost("the other end closed the connection");
  }
}

/** Null if the frame has another form, or names more blocks than the pool has. */
function readHead(data: unknown, numBlocks: number): TransferHead | null {
  const { migrationId, destinationBlocks, limits } = (data ?? {}) as Partial<TransferHead>;
  const { bufferBlocks, numLayers } = (limits ?? {}) as Partial<TransferLimits>;
  const isHead = typeof migrationId === "string" && Array.isArray(destinationBlocks) &&
    destinationBlocks.length <= numBlocks &&
    Number.isSafeInteger(bufferBlocks) && Number.isSafeInteger(numLayers);
  return isHead ? data as TransferHead : null;
}
