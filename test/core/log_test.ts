import assert from "node:assert/strict";
import { UsageError } from "../../src/core/errors.ts";
import { logger, type LogLevel, reopenLogFile, setupLogging } from "../../src/core/log.ts";

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

/** Runs in a folder of its own, with what goes to stderr. */
function inFolder(body: (folder: string) => void): string[] {
  const folder = Deno.makeTempDirSync();
  try {
    return captureStderr(() => body(folder)).map(withoutTime);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function modeOf(path: string): number {
  return Deno.statSync(path).mode! & 0o777;
}

Deno.test("a log file is for its user alone, and an old one keeps its mode", () => {
  inFolder((folder) => {
    const options = { level: "info", maxBytes: 200, backups: 1 } as const;
    setupLogging({ ...options, filename: `${folder}/new.log` });
    assert.equal(modeOf(`${folder}/new.log`), 0o600);
    logger("x").info("y".repeat(150));
    logger("x").info("z".repeat(150));
    assert.equal(modeOf(`${folder}/new.log.1`), 0o600);
    assert.equal(modeOf(`${folder}/new.log`), 0o600);
    Deno.writeTextFileSync(`${folder}/old.log`, "", { mode: 0o640 });
    setupLogging({ ...options, filename: `${folder}/old.log` });
    assert.equal(modeOf(`${folder}/old.log`), 0o640);
  });
});

Deno.test("a full log file is renamed, and the oldest of them removed", () => {
  inFolder((folder) => {
    const filename = `${folder}/server.log`;
    setupLogging({ level: "info", filename, maxBytes: 200, backups: 2 });
    for (const letter of "abcd") logger("x").info(letter.repeat(150));
    const letterIn = (path: string) => /INFO x: (.)/.exec(Deno.readTextFileSync(path))![1];
    assert.deepEqual(
      [filename, `${filename}.1`, `${filename}.2`].map(letterIn),
      ["d", "c", "b"],
    );
    assert.equal([...Deno.readDirSync(folder)].length, 3);
  });
});

Deno.test("a log file that was moved away is written anew when it is reopened", () => {
  const lines = inFolder((folder) => {
    const filename = `${folder}/server.log`;
    setupLogging({ level: "info", filename });
    logger("x").info("one");
    Deno.renameSync(filename, `${folder}/old.log`);
    logger("x").info("two");
    reopenLogFile();
    logger("x").info("three");
    assert.match(Deno.readTextFileSync(`${folder}/old.log`), /one\n.*two\n$/);
    assert.match(Deno.readTextFileSync(filename), /^\S+ INFO x: three\n$/);
    assert.equal(modeOf(filename), 0o600);
  });
  assert.equal(lines.length, 3);
});

/** Claims a log file from a process of its own, until it is stopped. */
async function startOther(filename: string): Promise<Deno.ChildProcess> {
  const module = import.meta.resolve("../../src/core/log.ts");
  const code = `import { setupLogging } from ${JSON.stringify(module)};
    console.log(setupLogging({ level: "info", filename: ${JSON.stringify(filename)} }));
    setInterval(() => {}, 1000);`;
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      "--config",
      config,
      `data:text/javascript,${encodeURIComponent(code)}`,
    ],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  reader.releaseLock();
  return child;
}

Deno.test("two servers do not share a log file, but a server and its instances do", async () => {
  const folder = Deno.makeTempDirSync();
  const filename = `${folder}/server.log`;
  const other = await startOther(filename);
  try {
    const lines = captureStderr(() => {
      const second = `${folder}/server-2.log`;
      assert.equal(setupLogging({ level: "info", filename }), second);
      logger("x").info("hello");
      assert.match(Deno.readTextFileSync(second), /hello\n$/);
      assert.equal(setupLogging({ level: "info", filename, isShared: true }), filename);
    });
    assert.match(
      withoutTime(lines[0]),
      /^WARN log: another process logs to \S+\/server\.log; this one logs to \S+\/server-2\.log$/,
    );
  } finally {
    other.kill("SIGKILL");
    await other.status;
    await other.stdout.cancel();
  }
  captureStderr(() => assert.equal(setupLogging({ level: "info", filename }), filename));
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("what is no regular file is neither claimed nor rotated", () => {
  inFolder((folder) => {
    const filename = `${folder}/device`; // a link: a mistake must not rename the device itself
    Deno.symlinkSync("/dev/null", filename);
    assert.equal(setupLogging({ level: "info", filename, maxBytes: 1 }), filename);
    logger("x").info("hello");
    assert.ok(Deno.lstatSync(filename).isSymlink);
    assert.equal([...Deno.readDirSync(folder)].length, 1);
  });
});

Deno.test("JSON: a record is one object a line, whatever is in it", () => {
  const log = logger("engine");
  const circle: Record<string, unknown> = { name: "c" };
  circle.self = circle;
  const lines = captureStderr(() => {
    setupLogging({ level: "info", filename: null, role: "instance-0", format: "json" });
    log.info('model "x"\nloaded', { layers: 30, path: "a\u2028b", none: undefined, big: 3n });
    log.error("failed", { error: new UsageError("no such file"), level: 5 });
    log.warn("round", { circle });
    log.info("\u202e", () => ({ list: [1, "x"] }));
  });
  const records = lines.map((line) => JSON.parse(line));
  for (const record of records) {
    assert.match(record.time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    delete record.time;
  }
  const source = { role: "instance-0", component: "engine" };
  assert.deepEqual(records[0], {
    level: "INFO",
    ...source,
    message: 'model "x"\nloaded',
    layers: 30,
    path: "a\u2028b",
    big: "3",
  });
  const failed = { level: "ERROR", ...source, message: "failed", error: "no such file" };
  assert.deepEqual(records[1], { ...failed, field_level: 5 });
  assert.match(records[2].circle, /\[Circular/);
  assert.deepEqual(records[3].list, [1, "x"]);
  assert.ok(!lines.join("").includes("\u202e"), "a control that turns the text around");
});
