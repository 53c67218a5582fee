/**
 * A network switch as a process, for kernels without a network emulator: the `eth0` of each host is a TAP
 * device that this process reads and writes. On the way from one host to another, it delays frames, loses
 * them, or lets none pass.
 *
 *   deno run -A scripts/hosts/switch.ts PREFIX NAMESPACE...
 *
 * Commands on stdin, one a line, each answered by "done": `set FROM TO DELAY_MS LOSS`, `cut FROM TO`. FROM
 * and TO are numbers of hosts from 1, or `*` for all; LOSS is a share from 0 to 1. Ends with stdin. Needs
 * root, `ip` and /dev/net/tun.
 */
const c = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32", nonblocking: true },
}).symbols;

/** open(2), if_tun.h and poll(2) of Linux. */
const O_RDWR = 2, O_NONBLOCK = 0o4000, TUNSETIFF = 0x400454ca, IFF_TAP = 2, IFF_NO_PI = 0x1000;
const POLLIN = 1;
const MAX_FRAME_BYTES = 65_536;
/** Frames of one host before it is another one's turn. */
const BURST = 64;
/** Poll this long while nothing waits to be delivered. */
const IDLE_POLL_MS = 20;

interface Path {
  delayMs: number;
  loss: number;
  isCut: boolean;
}

interface Frame {
  readonly dueMs: number;
  readonly to: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

class Switch {
  /** By number of the host. */
  readonly #descriptors = new Map<number, number>();
  readonly #paths = new Map<string, Path>();
  readonly #buffer = new Uint8Array(MAX_FRAME_BYTES);
  #delayed: Frame[] = [];

  async add(host: number, prefix: string, namespace: string): Promise<void> {
    this.#descriptors.set(host, await openTap(`${prefix}t${host}`, host, namespace));
    for (const other of this.#descriptors.keys()) {
      this.#paths.set(`${host} ${other}`, { delayMs: 0, loss: 0, isCut: false });
      this.#paths.set(`${other} ${host}`, { delayMs: 0, loss: 0, isCut: false });
    }
  }

  obey(line: string): void {
    const [verb, from, to, delayMs, loss] = line.split(" ");
    for (const [pair, path] of this.#paths) {
      const [first, second] = pair.split(" ");
      if ((from !== "*" && from !== first) || (to !== "*" && to !== second)) continue;
      if (verb === "cut") path.isCut = true;
      else Object.assign(path, { isCut: false, delayMs: Number(delayMs), loss: Number(loss) });
    }
  }

  /** Carries frames for ever. */
  async run(): Promise<never> {
    const hosts = [...this.#descriptors.keys()];
    const entries = new DataView(new ArrayBuffer(8 * hosts.length)); // struct pollfd
    for (;;) {
      for (const [i, host] of hosts.entries()) {
        entries.setInt32(8 * i, this.#descriptors.get(host)!, true);
        entries.setInt16(8 * i + 4, POLLIN, true);
      }
      const limitMs = this.#delayed.length > 0 ? 1 : IDLE_POLL_MS;
      await c.poll(new Uint8Array(entries.buffer), BigInt(hosts.length), limitMs);
      for (const [i, host] of hosts.entries()) {
        if (entries.getInt16(8 * i + 6, true) !== 0) this.#take(host);
      }
      this.#deliver();
    }
  }

  #take(from: number): void {
    const descriptor = this.#descriptors.get(from)!;
    for (let i = 0; i < BURST; i++) {
      const size = Number(c.read(descriptor, this.#buffer, BigInt(MAX_FRAME_BYTES)));
      if (size <= 0) return;
      const isForAll = (this.#buffer[0] & 1) === 1;
      const targets = isForAll
        ? [...this.#descriptors.keys()].filter((host) => host !== from)
        : [this.#buffer[5]]; // last byte of the address: see macOf
      for (const to of targets) this.#send(from, to, this.#buffer.subarray(0, size));
    }
  }

  #send(from: number, to: number, bytes: Uint8Array<ArrayBuffer>): void {
    const path = this.#paths.get(`${from} ${to}`);
    if (path === undefined || path.isCut || Math.random() < path.loss) return;
    if (path.delayMs === 0) return this.#write(to, bytes);
    this.#delayed.push({ dueMs: performance.now() + path.delayMs, to, bytes: bytes.slice() });
  }

  #deliver(): void {
    const nowMs = performance.now();
    const later: Frame[] = [];
    for (const frame of this.#delayed) {
      if (frame.dueMs <= nowMs) this.#write(frame.to, frame.bytes);
      else later.push(frame);
    }
    this.#delayed = later;
  }

  #write(to: number, bytes: Uint8Array<ArrayBuffer>): void {
    c.write(this.#descriptors.get(to)!, bytes, BigInt(bytes.length));
  }
}

/** Makes the `eth0` of a namespace; the descriptor stays with this process. */
async function openTap(device: string, host: number, namespace: string): Promise<number> {
  const descriptor = c.open(new TextEncoder().encode("/dev/net/tun\0"), O_RDWR | O_NONBLOCK);
  if (descriptor < 0) throw new Error("cannot open /dev/net/tun");
  const request = new Uint8Array(40); // struct ifreq: 16 bytes of name, flags
  request.set(new TextEncoder().encode(device));
  new DataView(request.buffer).setUint16(16, IFF_TAP | IFF_NO_PI, true);
  if (c.ioctl(descriptor, BigInt(TUNSETIFF), request) !== 0) {
    throw new Error(`cannot make the device ${device}`);
  }
  const args = ["link", "set", device, "address", macOf(host), "netns", namespace, "name", "eth0"];
  const { success, stderr } = await new Deno.Command("ip", { args }).output();
  if (!success) throw new Error(`ip ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return descriptor;
}

/** The last byte tells the host. */
function macOf(host: number): string {
  return `02:00:00:00:00:${host.toString(16).padStart(2, "0")}`;
}

async function obeyCommands(one: Switch): Promise<never> {
  let rest = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      one.obey(line);
      console.log("done");
    }
  }
  Deno.exit(0);
}

const [prefix, ...namespaces] = Deno.args;
const theSwitch = new Switch();
for (const [i, namespace] of namespaces.entries()) await theSwitch.add(i + 1, prefix, namespace);
console.log("done");
obeyCommands(theSwitch);
await theSwitch.run();
