/**
 * TCP sockets, a pipe and `poll` of the C library through FFI, all non-blocking. Unlike Deno's own
 * sockets, they read and write many places of native memory in one call, and a thread can wait for
 * all of them at once. Linux only: the constants and layouts are those of 64-bit Linux.
 */
import { openLibC } from "./libc.ts";

const symbols = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  accept4: { parameters: ["i32", "u64", "u64", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  readv: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  writev: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  strerror: { parameters: ["i32"], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

// sys/socket.h, netinet/in.h, netinet/tcp.h, fcntl.h of Linux.
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const SO_KEEPALIVE = 9;
const SO_RCVLOWAT = 18;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
/** `struct sockaddr_in`, `struct sockaddr_in6`: family, port, [flow,] address[, scope]. */
const SOCKADDR_BYTES = 16, SOCKADDR6_BYTES = 28;
const BACKLOG = 128;
/** Keep-alive: a peer whose host has vanished is noticed after 10 + 3 * 5 s. */
const KEEP_ALIVE_SECONDS = { idle: 10, interval: 5, count: 3 };

/** Most places that one call reads or writes (limits.h: IOV_MAX). */
export const MAX_PLACES = 1024;

/** A descriptor that `poll` passes over. */
export const NO_DESCRIPTOR = -1;

export const POLLIN = 1;
export const POLLOUT = 4;
/** The other end has closed. `poll` always reports this and failures, whether asked for or not. */
export const POLLHUP = 16;
/** POLLERR or POLLNVAL. */
export const POLLFAILED = 8 | 32;

/** A file descriptor and the events to wait for. */
export interface Interest {
  readonly fd: number;
  readonly events: number;
}

/** The C library's sockets; null on systems other than Linux. */
export function openSockets(): Sockets | null {
  if (Deno.build.os !== "linux") return null;
  const c = openLibC(symbols);
  return c === null ? null : new Sockets(c);
}

/** File descriptors are plain numbers: the caller that opens one must close it. */
export class Sockets {
  readonly #c: Deno.DynamicLibrary<typeof symbols>["symbols"];

  constructor(c: Deno.DynamicLibrary<typeof symbols>["symbols"]) {
    this.#c = c;
  }

  /**
   * Listens at a free port of an IP address.
   * @throws {Error} the system cannot listen there
   */
  listen(host: string): { fd: number; port: number } {
    const name = socketAddress(host, 0);
    const fd = this.#socket(name);
    if (this.#c.bind(fd, name, name.length) !== 0 || this.#c.listen(fd, BACKLOG) !== 0) {
      this.close(fd);
      throw new Error(`cannot listen at ${host}`);
    }
    this.#c.getsockname(fd, name, bytesOf(Int32Array.of(name.length)));
    return { fd, port: new DataView(name.buffer).getUint16(2) };
  }

  /** The next incoming connection, or -1 if there is none or this process may not open more files. */
  accept(listener: number): number {
    const fd = this.#c.accept4(listener, 0n, 0n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) this.#tune(fd);
    return fd;
  }

  /** Begins to connect to an IP address. Once writable, {@linkcode error} tells whether it succeeded. */
  connect(host: string, port: number): number {
    const name = socketAddress(host, port);
    const fd = this.#socket(name);
    this.#tune(fd);
    this.#c.connect(fd, name, name.length); // EINPROGRESS
    return fd;
  }

  /** Why a socket failed since the last call; null if it did not fail. */
  error(fd: number): string | null {
    const error = new Int32Array(1);
    const length = bytesOf(Int32Array.of(4));
    if (this.#c.getsockopt(fd, SOL_SOCKET, SO_ERROR, bytesOf(error), length) !== 0) return "closed";
    if (error[0] === 0) return null;
    const text = this.#c.strerror(error[0]);
    return text === null ? `error ${error[0]}` : Deno.UnsafePointerView.getCString(text);
  }

  /** @returns bytes read; 0 at the end of the stream; -1 if no data is there now, or on an error */
  read(fd: number, into: Uint8Array<ArrayBuffer>): number {
    return Number(this.#c.read(fd, into, BigInt(into.length)));
  }

  /** @returns bytes written; -1 if nothing can be written now, or on an error */
  write(fd: number, bytes: Uint8Array<ArrayBuffer>): number {
    return Number(this.#c.write(fd, bytes, BigInt(bytes.length)));
  }

  /**
   * Reads into native memory.
   * @param places pairs of address and bytes, at most {@linkcode MAX_PLACES} of them
   * @returns as {@linkcode read}
   */
  readInto(fd: number, places: BigUint64Array<ArrayBuffer>): number {
    return Number(this.#c.readv(fd, bytesOf(places), places.length / 2));
  }

  /** Writes from native memory; returns as {@linkcode write}. */
  writeFrom(fd: number, places: BigUint64Array<ArrayBuffer>): number {
    return Number(this.#c.writev(fd, bytesOf(places), places.length / 2));
  }

  /**
   * Blocks this thread until an event occurs.
   * @param timeoutMs rounded up; Infinity for no limit
   * @returns the events that occurred, by index; all zero after the time-out
   */
  poll(interests: readonly Interest[], timeoutMs: number): Int16Array {
    const entries = new DataView(new ArrayBuffer(8 * interests.length));
    interests.forEach(({ fd, events }, i) => {
      entries.setInt32(8 * i, fd, true);
      entries.setInt16(8 * i + 4, events, true);
    });
    const limit = timeoutMs === Infinity ? -1 : Math.max(0, Math.ceil(timeoutMs));
    this.#c.poll(new Uint8Array(entries.buffer), BigInt(interests.length), limit);
    return Int16Array.from(interests, (_, i) => entries.getInt16(8 * i + 6, true));
  }

  /** A pipe that wakes a thread in {@linkcode poll}. */
  pipe(): { readEnd: number; writeEnd: number } {
    const fds = new Int32Array(2);
    if (this.#c.pipe2(bytesOf(fds), O_NONBLOCK | O_CLOEXEC) !== 0) {
      throw new Error("cannot open a pipe: raise the limit of open files");
    }
    return { readEnd: fds[0], writeEnd: fds[1] };
  }

  /** Lets `poll` report a socket as readable only once this many bytes are there, or at its end. */
  setLeastBytes(fd: number, bytes: number): void {
    this.#set(fd, SOL_SOCKET, SO_RCVLOWAT, bytes);
  }

  close(fd: number): void {
    this.#c.close(fd);
  }

  /** Opens a socket of an address's family. */
  #socket(name: Uint8Array<ArrayBuffer>): number {
    const family = new DataView(name.buffer).getUint16(0, true);
    const fd = this.#c.socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) throw new Error("cannot open a socket: raise the limit of open files");
    return fd;
  }

  #tune(fd: number): void {
    const { idle, interval, count } = KEEP_ALIVE_SECONDS;
    this.#set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    this.#set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    this.#set(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
    this.#set(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval);
    this.#set(fd, IPPROTO_TCP, TCP_KEEPCNT, count);
  }

  #set(fd: number, level: number, name: number, value: number): void {
    this.#c.setsockopt(fd, level, name, bytesOf(Int32Array.of(value)), 4);
  }
}

/** @throws {RangeError} `host` is not an IP address */
function socketAddress(host: string, port: number): Uint8Array<ArrayBuffer> {
  const parts = host.includes(":") ? ipv6Bytes(host) : ipv4Bytes(host);
  if (parts === null) throw new RangeError(`${host} is not an IP address`);
  const isIpv6 = parts.length === 16;
  const name = new Uint8Array(isIpv6 ? SOCKADDR6_BYTES : SOCKADDR_BYTES);
  const view = new DataView(name.buffer);
  view.setUint16(0, isIpv6 ? AF_INET6 : AF_INET, true);
  view.setUint16(2, port);
  name.set(parts, isIpv6 ? 8 : 4);
  return name;
}

function ipv4Bytes(host: string): number[] | null {
  const parts = host.split(".").map(Number);
  return parts.length === 4 && parts.every((part) => part >= 0 && part <= 255) ? parts : null;
}

/** Does not accept addresses with a zone (`%eth0`). */
function ipv6Bytes(host: string): number[] | null {
  const url = URL.parse(`http://[${host}]`);
  if (url === null) return null;
  // A URL has the address in its short form: hexadecimal groups, at most one `::`.
  const [head, tail = ""] = url.hostname.slice(1, -1).split("::");
  const groupsOf = (half: string) =>
    half === "" ? [] : half.split(":").map((hex) => parseInt(hex, 16));
  const first = groupsOf(head), last = groupsOf(tail);
  const zeros: number[] = Array(8 - first.length - last.length).fill(0);
  return [...first, ...zeros, ...last].flatMap((group) => [group >> 8, group & 255]);
}

function bytesOf(numbers: Int32Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>) {
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}
