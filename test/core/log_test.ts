import assert from "node:assert/strict";
import { UsageError } from "../../src/core/errors.ts";
import { logger, type LogLevel, setupLogging } from "../../src/core/log.ts";

/** Runs with stderr captured, then leaves logging without a file. */
function captureStderr(body: () => void): string[] {
  const written: Uint8Array[] = [];
  const original = Deno.stderr.writeSync;
  Deno.stderr.writeSync = (bytes) => {
    written.push(bytes.slice());
    return bytes.length;
  };
  try {
    body();
    setupLogging({ level: "error", filename: null });
  } finally {
    Deno.stderr.writeSync = original;
  }
  const text = written.map((bytes) => new TextDecoder().decode(bytes)).join("");
  return text.split("\n").slice(0, -1);
}

function withoutTime(line: string): string {
  const match = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*)$/.exec(line);
  assert.ok(match, `no time at the start of: ${line}`);
  return match[1];
}

Deno.test("a record is one line: time, level, role and component, message, fields", () => {
  const log = logger("engine");
  const lines = captureStderr(() => {
    setupLogging({ level: "info", filename: null, role: "instance-0" });
    log.info("model loaded", { layers: 30, dtype: "bfloat16", path: "a b", none: undefined });
    log.warn("odd", { value: null, list: [1, "x"], big: 3n, empty: "", equals: "a=b" });
  });
  assert.deepEqual(lines.map(withoutTime), [
    'INFO instance-0/engine: model loaded layers=30 dtype=bfloat16 path="a b"',
    'WARN instance-0/engine: odd value=null list=[1,"x"] big=3 empty="" equals="a=b"',
  ]);
});

Deno.test("records below the level cost no fields and leave no trace", () => {
  const log = logger("x");
  const count = (level: LogLevel) =>
    captureStderr(() => {
      setupLogging({ level, filename: null });
      log.debug("a", () => {
        assert.equal(level, "debug");
        return {};
      });
      log.info("b");
      log.warn("c");
      log.error("d");
    }).length;
  assert.deepEqual((["debug", "info", "warning", "error"] as const).map(count), [4, 3, 2, 1]);
});

Deno.test("input cannot forge a record", () => {
  const [line, ...rest] = captureStderr(() => {
    setupLogging({ level: "info", filename: null });
    logger("x").info("a\nb", { text: "c\r\nd", list: ["e\n", "\x7f"] });
  });
  assert.equal(rest.length, 0);
  assert.equal(
    withoutTime(line),
    String.raw`INFO x: a\u000ab text="c\r\nd" list=["e\n","\u007f"]`,
  );
});

Deno.test("deliberate errors show their message, bugs their stack", () => {
  const [deliberate, system, bug] = captureStderr(() => {
    setupLogging({ level: "error", filename: null });
    const log = logger("x");
    log.error("a", { cause: new UsageError("port 99999 is no port") });
    log.error("b", { cause: new Deno.errors.NotFound("no such file") });
    log.error("c", { cause: new TypeError("oops") });
  });
  assert.match(deliberate, /cause="port 99999 is no port"$/);
  assert.match(system, /cause="no such file"$/);
  assert.match(bug, /cause="TypeError: oops\\n +at .*log_test/);
});

Deno.test("the log file is appended to and complete at any moment", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const filename = `${directory}/server.log`;
    Deno.writeTextFileSync(filename, "before\n");
    const lines = captureStderr(() => {
      assert.equal(setupLogging({ level: "info", filename }), filename);
      let calls = 0;
      logger("x").info("hello", () => ({ calls: ++calls, long: "y".repeat(10_000) }));
      assert.match(Deno.readTextFileSync(filename), /^before\n.* INFO x: hello calls=1 long=y+\n$/);
    });
    assert.equal("before\n" + lines.join("\n") + "\n", Deno.readTextFileSync(filename));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a log file that cannot be opened costs one warning", () => {
  const filename = "/dev/null/server.log";
  const lines = captureStderr(() => {
    assert.equal(setupLogging({ level: "info", filename }), null);
    logger("x").info("still here");
    logger("x").info("and here");
  }).map(withoutTime);
  assert.equal(lines.length, 3);
  assert.match(
    lines[0],
    /^WARN log: cannot write the log file; logging to stderr alone filename=\/dev\/null\/server.log cause="Not a directory/,
  );
  assert.deepEqual(lines.slice(1), ["INFO x: still here", "INFO x: and here"]);
});

Deno.test({
  name: "a log file that fails later costs one warning",
  ignore: Deno.build.os !== "linux",
  // The handler cannot close a file that it cannot flush.
  sanitizeResources: false,
  fn() {
    const lines = captureStderr(() => {
      setupLogging({ level: "info", filename: "/dev/full" });
      logger("x").info("one");
      logger("x").info("two");
    }).map(withoutTime);
    assert.deepEqual([lines[0], lines[2]], ["INFO x: one", "INFO x: two"]);
    assert.match(lines[1], /^WARN log: cannot write the log file/);
    assert.equal(lines.length, 3);
  },
});

Deno.test("characters that could forge a record or reorder it on a terminal are escaped", () => {
  const hostile = "a\u0085b\u009bc\u2028d\u2029e\u202ef\u2066g\u200fh\u061ci";
  const escaped = "a\\u0085b\\u009bc\\u2028d\\u2029e\\u202ef\\u2066g\\u200fh\\u061ci";
  const lines = captureStderr(() => {
    setupLogging({ level: "info", filename: null });
    logger("x").info(hostile, { text: hostile, record: { inner: hostile } });
  });
  assert.deepEqual(lines.map(withoutTime), [
    `INFO x: ${escaped} text="${escaped}" record={"inner":"${escaped}"}`,
  ]);
});
