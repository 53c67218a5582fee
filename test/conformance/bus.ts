/** What every implementation of `Bus` must do. */
import assert from "node:assert/strict";
import { until as patiently } from "../patience.ts";
import { setImmediate } from "node:timers";
import {
  type Address,
  type BusLimits,
  defaultBusLimits,
  type Listener,
} from "../../src/bus/bus.ts";
import type { Protocol } from "../../src/bus/protocol.ts";
import type {
  AnyBus as Bus,
  AnyMessage as Message,
  AnyPeer as Peer,
  AnyService as Service,
} from "../../src/bus/transport.ts";
import {
  LlumnixError,
  NobodyListensError,
  OverloadedError,
  RequestError,
  UnavailableError,
} from "../../src/core/errors.ts";
import { Random } from "../../src/core/random.ts";

/** Of the tests of transports: any method, and any data. */
export const anyProtocol: Protocol = { version: 7, calls: {}, notifications: {} };

/** An implementation under test. */
export interface BusUnderTest {
  readonly name: string;
  open(limits: BusLimits): Bus;
  /** An address that nobody uses. */
  freshAddress(): Address;
}

/** A listener, one connection to it, and both ends of that. */
interface Link {
  readonly bus: Bus;
  readonly listener: Listener;
  /** The connecting end. */
  readonly near: Peer;
  /** The accepted end. */
  readonly far: Peer;
  /** Reasons that `onClose` gave, in order. */
  readonly nearClosed: string[];
  readonly farClosed: string[];
}

interface LinkOptions {
  readonly far?: Service;
  readonly near?: Service;
  readonly limits?: Partial<BusLimits>;
}

const none: Message = { data: null };

/** Registers the suite's tests. */
export function testBus(subject: BusUnderTest): void {
  const test = (title: string, body: () => Promise<void>) =>
    Deno.test(`${subject.name} bus: ${title}`, body);

  async function withLink(options: LinkOptions, body: (link: Link) => Promise<void>) {
    const bus = subject.open({ ...defaultBusLimits, ...options.limits });
    const nearClosed: string[] = [], farClosed: string[] = [];
    const accepted = Promise.withResolvers<Peer>();
    const listener = await bus.listen(subject.freshAddress(), {
      ...options.far,
      onConnect: (peer) => accepted.resolve(peer),
      onClose: (_, reason) => farClosed.push(reason),
    });
    const near = await bus.connect(listener.address, {
      ...options.near,
      onClose: (_, reason) => nearClosed.push(reason),
    });
    const far = await accepted.promise;
    try {
      await body({ bus, listener, near, far, nearClosed, farClosed });
    } finally {
      await near.close();
      await listener.close();
    }
    assert.equal(nearClosed.length, 1, "onClose of the connecting end is called once");
    assert.equal(farClosed.length, 1, "onClose of the accepted end is called once");
  }

  test("either end calls the other", () => {
    const add: Service = {
      calls: { add: ({ data }) => ({ data: (data as number[])[0] + (data as number[])[1] }) },
    };
    return withLink({ near: add, far: add }, async ({ near, far }) => {
      assert.equal((await near.call("add", { data: [1, 2] })).data, 3);
      assert.equal((await far.call("add", { data: [3, 4] })).data, 7);
    });
  });

  test("data arrives as JSON, and nobody shares it", () => {
    const seen: unknown[] = [];
    const far: Service = {
      calls: {
        keep: ({ data }) => {
          seen.push(data);
          return { data };
        },
      },
    };
    return withLink({ far }, async ({ near }) => {
      const sent = { text: 'é\u2028 "\\ 𝄞', list: [1.5, null, true], none: undefined, bad: NaN };
      const expected = { text: sent.text, list: [1.5, null, true], bad: null };
      const promise = near.call("keep", { data: sent });
      sent.list.push(9);
      const { data } = await promise;
      assert.deepEqual(seen, [expected]);
      assert.deepEqual(data, expected);
      assert.notEqual(data, seen[0]);
      assert.equal((await near.call("keep", { data: undefined })).data, null);
    });
  });

  test("payloads of every size come back equal, and are copied", () => {
    const far: Service = { calls: { echo: (message) => message } };
    return withLink({ far }, async ({ near }) => {
      const random = new Random(1);
      for (const size of [0, 1, 1000, 16 << 10, (16 << 10) + 1, 256 << 10, 300_001, 8 << 20]) {
        const payload = new Uint8Array(size);
        for (let i = 0; i < size; i += 997) payload[i] = random.below(256);
        const expected = payload.slice();
        const promise = near.call("echo", { data: size, payload });
        payload.fill(255);
        const given = { data: size, payload: expected.slice(), isPayloadGiven: true };
        for (const answer of await Promise.all([promise, near.call("echo", given)])) {
          assert.equal(answer.data, size);
          assert.ok(answer.payload && equalBytes(answer.payload, expected), `${size} bytes`);
        }
      }
      assert.equal((await near.call("echo", none)).payload, undefined);
    });
  });

  test("texts of every size come back equal", () => {
    const far: Service = { calls: { echo: (message) => message } };
    return withLink({ far }, async ({ near }) => {
      for (const size of [0, 1, 10_000, 40_000, 140_000, 3 << 20]) {
        const text = "añ€𝄞".repeat(size / 4);
        assert.ok((await near.call("echo", { data: text })).data === text, `${size} characters`);
      }
    });
  });

  test("messages arrive in the order sent, of whatever size and kind", () => {
    const seen: number[] = [];
    const far: Service = {
      calls: {
        next: ({ data }) => {
          seen.push((data as { i: number }).i);
          return none;
        },
      },
      notifications: { next: ({ data }) => void seen.push((data as { i: number }).i) },
    };
    return withLink({ far }, async ({ near }) => {
      const random = new Random(2);
      const answers: Promise<Message>[] = [];
      for (let i = 0; i < 3000; i++) {
        const size = random.below(50) === 0 ? 100_000 : random.below(200);
        const payload = random.below(10) === 0 ? new Uint8Array(size) : undefined;
        const message = { data: { i, text: "x".repeat(size) }, payload };
        if (random.below(20) === 0) answers.push(near.call("next", message));
        else near.notify("next", message);
        if (random.below(100) === 0) await turn();
      }
      await Promise.all(answers);
      await near.call("next", { data: { i: 3000 } });
      assert.deepEqual(seen, Array.from({ length: 3001 }, (_, i) => i));
    });
  });

  test("many calls at once are answered to their callers, in any order", () => {
    const waiting: (() => void)[] = [];
    const far: Service = {
      calls: {
        square: ({ data }) =>
          new Promise((resolve) => {
            waiting.push(() => resolve({ data: (data as number) ** 2 }));
            if (waiting.length === 2000) { for (const answer of waiting.reverse()) answer(); }
          }),
      },
    };
    return withLink({ far }, async ({ near }) => {
      const numbers = Array.from({ length: 2000 }, (_, i) => i);
      const answers = await Promise.all(numbers.map((i) => near.call("square", { data: i })));
      assert.deepEqual(answers.map(({ data }) => data), numbers.map((i) => i * i));
      assert.equal(near.bufferedBytes, 0);
    });
  });

  test("a handler's error keeps its kind", () => {
    const far: Service = {
      calls: {
        refuse: () => {
          throw new RequestError("too hot", "temperature");
        },
        full: () => Promise.reject(new OverloadedError("queue is full")),
      },
    };
    return withLink({ far }, async ({ near }) => {
      const refused = await rejection(near.call("refuse", none));
      assert.ok(refused instanceof RequestError);
      assert.deepEqual([refused.message, refused.param], ["too hot", "temperature"]);
      assert.ok(await rejection(near.call("full", none)) instanceof OverloadedError);
      assert.ok(near.isOpen);
    });
  });

  test("a defect in a handler is told to the caller, and closes the connection", async () => {
    const defect = new TypeError("x is undefined");
    const far: Service = {
      calls: {
        throws: () => {
          throw defect;
        },
        rejects: () => Promise.reject(defect),
      },
    };
    for (const method of ["throws", "rejects"]) {
      await withLink({ far }, async ({ near, farClosed }) => {
        const error = await rejection(near.call(method, none));
        assert.deepEqual([error.kind, error.message], ["internal", "x is undefined"]);
        await until(() => farClosed.length > 0 && !near.isOpen);
        assert.equal(farClosed[0], `call "${method}": x is undefined`);
      });
    }
  });

  test("an error too long for a frame arrives cut, with its kind", () => {
    const tooLong = () => new UnavailableError("\u0001\u20ac".repeat(5000));
    const far: Service = {
      calls: {
        throws: () => {
          throw tooLong();
        },
        rejects: () => Promise.reject(tooLong()),
      },
    };
    return withLink({ far, limits: { maxFrameBytes: 1000 } }, async ({ near }) => {
      for (const method of ["throws", "rejects"]) {
        const error = await rejection(near.call(method, none));
        assert.equal(error.kind, "unavailable");
        assert.ok(error.message.startsWith("\u0001\u20ac\u0001"));
      }
      assert.ok(near.isOpen);
    });
  });

  test("an onClose that throws hurts nobody", async () => {
    const bus = subject.open(defaultBusLimits);
    const closed: string[] = [];
    const service = (end: string): Service => ({
      onClose() {
        closed.push(end);
        throw new Error("a defect of onClose");
      },
    });
    const listener = await bus.listen(subject.freshAddress(), service("far"));
    const near = await bus.connect(listener.address, service("near"));
    await near.close();
    await until(() => closed.length === 2);
    await listener.close();
  });

  test("unknown methods are refused, also those of Object's prototype", () =>
    withLink({ far: { calls: {} } }, async ({ near }) => {
      assert.equal((await rejection(near.call("nothing", none))).kind, "not_found");
      assert.equal((await rejection(near.call("constructor", none))).kind, "not_found");
      assert.ok(near.isOpen);
    }));

  test("a notification that nobody knows, or whose handler throws, closes the connection", async () => {
    const far: Service = {
      notifications: {
        bug: () => {
          throw new Error("oops");
        },
      },
    };
    for (const method of ["unknown", "bug"]) {
      await withLink({ far }, async ({ near, farClosed }) => {
        near.notify(method, none);
        await until(() => farClosed.length > 0 && !near.isOpen);
        assert.match(farClosed[0], new RegExp(method));
      });
    }
  });

  test("a call that is not answered in time is rejected, and its late answer ignored", () => {
    const late = Promise.withResolvers<Message>();
    const far: Service = { calls: { late: () => late.promise, ping: () => none } };
    return withLink({ far }, async ({ near }) => {
      const error = await rejection(near.call("late", none, { timeoutMs: 5 }));
      assert.equal(error.kind, "unavailable");
      assert.match(error.message, /did not answer late in 5 ms/);
      late.resolve(none);
      await near.call("ping", none);
    });
  });

  for (const end of ["near", "far"] as const) {
    test(`closing the ${end} end during a call rejects it`, () => {
      const far: Service = { calls: { hang: () => new Promise(() => {}) } };
      return withLink({ far }, async (link) => {
        const call = rejection(link.near.call("hang", none, { timeoutMs: Infinity }));
        await turn();
        await link[end].close();
        assert.equal((await call).kind, "unavailable");
        await until(() => link.nearClosed.length > 0 && link.farClosed.length > 0);
        assert.equal((await rejection(link.near.call("hang", none))).kind, "unavailable");
        link.near.notify("dropped", none);
      });
    });
  }

  test("close sends what is buffered first", () => {
    let count = 0;
    const far: Service = { notifications: { count: () => void count++ } };
    return withLink({ far }, async ({ near, farClosed }) => {
      for (let i = 0; i < 100; i++) near.notify("count", { data: "x".repeat(10_000) });
      await Promise.all([near.close(), near.close()]);
      await until(() => farClosed.length > 0);
      assert.equal(count, 100);
    });
  });

  test("a handler may close its own connection; nothing is handled after that", () => {
    let count = 0;
    const far: Service = {
      notifications: {
        close: (_, peer) => {
          count++;
          peer.close();
        },
      },
    };
    return withLink({ far }, async ({ near, nearClosed }) => {
      for (let i = 0; i < 10; i++) near.notify("close", none);
      await until(() => nearClosed.length > 0);
      assert.equal(count, 1);
    });
  });

  test("closing the listener closes what it accepted and refuses what comes", () =>
    withLink({}, async ({ bus, listener, near }) => {
      await Promise.all([listener.close(), listener.close()]);
      await until(() => !near.isOpen);
      const error = await rejection(bus.connect(listener.address, {}));
      assert.ok(error instanceof NobodyListensError, `${error}`);
    }));

  test("an address is bound once, and can be bound again after close", async () => {
    const bus = subject.open(defaultBusLimits);
    const first = await bus.listen(subject.freshAddress(), {});
    const error = await rejection(bus.listen(first.address, {}));
    assert.equal(error.kind, "unavailable");
    assert.match(error.message, /in use/);
    await first.close();
    await (await bus.listen(first.address, {})).close();
  });

  test("an address of no known form is refused", async () => {
    const bus = subject.open(defaultBusLimits);
    for (const address of ["", "inproc:", "unix:", "tcp:host", "tcp:host:70000", "pigeon:x", "x"]) {
      assert.equal((await rejection(bus.listen(address, {}))).kind, "unavailable");
      assert.equal((await rejection(bus.connect(address, {}))).kind, "unavailable");
    }
  });

  test("a message over the frame limit is refused, and the connection lives on", () => {
    const far: Service = { calls: { echo: (message) => message, grow: () => ({ data: tooLong }) } };
    const tooLong = "é".repeat(600);
    return withLink({ far, limits: { maxFrameBytes: 1000 } }, async ({ near }) => {
      for (const message of [{ data: tooLong }, { data: 1, payload: new Uint8Array(1000) }]) {
        const error = await rejection(near.call("echo", message));
        assert.equal(error.kind, "invalid_request");
        assert.match(error.message, /over the limit of 1000 bytes/);
        assert.throws(() => near.notify("echo", message), RequestError);
      }
      assert.equal((await rejection(near.call("grow", none))).kind, "invalid_request");
      const fits = "x".repeat(960);
      assert.equal((await near.call("echo", { data: fits })).data, fits);
    });
  });

  test("more calls than the limit are refused", () => {
    const far: Service = { calls: { hang: () => new Promise(() => {}) } };
    return withLink({ far, limits: { maxPendingCalls: 3 } }, async ({ near }) => {
      const hanging = [1, 2, 3].map(() => rejection(near.call("hang", none)));
      assert.equal((await rejection(near.call("hang", none))).kind, "overloaded");
      await near.close();
      for (const error of await Promise.all(hanging)) assert.equal(error.kind, "unavailable");
    });
  });

  test("a backlog over the limit closes the connection", () =>
    withLink({ limits: { maxBufferedBytes: 100_000 } }, async ({ near, nearClosed }) => {
      for (let i = 0; near.isOpen; i++) {
        assert.ok(near.bufferedBytes <= 100_000);
        assert.ok(i < 100);
        near.notify("flood", { data: null, payload: new Uint8Array(10_000) });
      }
      await until(() => nearClosed.length > 0);
      assert.match(nearClosed[0], /does not keep up/);
    }));
}

/** The error that a promise is rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<LlumnixError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof LlumnixError, String(error));
    return error;
  }
  assert.fail("expected a rejection");
}

/** Waits for what must come true soon. */
/** Waits for a condition: some turns first, then a while. */
export async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; turns < 100 && !condition(); turns++) await turn();
  await patiently(condition, `${condition}`, 1);
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
