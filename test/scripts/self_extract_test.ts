/** The header of the self-extracting executable, with a shell script in the place of the runtime. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { writeSelfExtracting } from "../../scripts/bundle/self_extract.ts";
import { runProgram } from "../e2e/harness.ts";

const runtime = `#!/bin/sh
for word in "$@"; do last=$word; done
case $last in
  exit) exit 7 ;;
  signal) kill -TERM $$ ;;
esac
printf '%s|' "$@"
echo "$LLUMNIX_SELF $DENO_DIR $PATH [$HOME] [$LLUMNIX_HOME]"
`;

const app = "// the program\n";
/** Longer than a block, and ends with newlines, which must not be taken for padding. */
const weights = new Uint8Array(5000).map((_, i) => i < 4990 ? i : 0x0a);

class Fixture implements Disposable {
  readonly directory = Deno.realPathSync(Deno.makeTempDirSync());
  readonly executable = join(this.directory, "llumnix");
  readonly cache = join(this.directory, "cache");

  static async make(runtimeText = runtime): Promise<Fixture> {
    const fixture = new Fixture();
    const path = (name: string) => join(fixture.directory, name);
    await Deno.mkdir(path("app/model"), { recursive: true });
    await Deno.writeTextFile(path("app/main.js"), app);
    await Deno.writeFile(path("app/model/weights"), weights);
    await Deno.writeTextFile(path("runtime"), runtimeText);
    await writeSelfExtracting({
      appDirectory: path("app"),
      mainModule: "main.js",
      runtimePath: path("runtime"),
      cacheDirectory: fixture.directory,
      version: "1.2.3",
      unstableFlags: ["--unstable-x"],
      outputPath: fixture.executable,
    });
    return fixture;
  }

  run(args: string[], env: Record<string, string>) {
    return runProgram(args, { command: [this.executable], env });
  }

  [Symbol.dispose]() {
    Deno.removeSync(this.directory, { recursive: true });
  }
}

const names = (directory: string) => [...Deno.readDirSync(directory)].map((e) => e.name).sort();
const unpacked = [/^deno-.*-[0-9a-f]{16}$/, /^llumnix-1\.2\.3-[0-9a-f]{16}$/];

function assertUnpacked(directory: string) {
  const found = names(directory);
  assert.equal(found.length, unpacked.length, `unpacked: ${found}`);
  unpacked.forEach((pattern, i) => assert.match(found[i], pattern));
}

Deno.test("the program gets its flags, its arguments and its own path", async () => {
  using fixture = await Fixture.make();
  const { code, stdout, stderr } = await fixture.run(["a b", "$c", ""], {
    XDG_CACHE_HOME: fixture.cache,
    PATH: "/nowhere",
    HOME: "/home/x",
  });
  const place = join(fixture.cache, "llumnix");
  assertUnpacked(place);
  assert.equal(stderr, "");
  assert.equal(code, 0);
  const words = stdout.split("|");
  assert.deepEqual(words.slice(0, 2), ["run", "-A"]);
  assert.deepEqual(words.slice(-6), [
    "--unstable-x",
    join(place, names(place)[1], "main.js"),
    "a b",
    "$c",
    "",
    `${fixture.executable} ${place}/deno /nowhere [${place}] [/home/x]\n`,
  ]);
  assert.equal(Deno.readTextFileSync(join(place, names(place)[1], "main.js")), app);
  assert.deepEqual(Deno.readFileSync(join(place, names(place)[1], "model/weights")), weights);
  assert.equal(Deno.statSync(place).mode! & 0o777, 0o700);
});

Deno.test("later runs use what the first one unpacked", async () => {
  using fixture = await Fixture.make();
  const env = { HOME: fixture.cache };
  const place = join(fixture.cache, ".cache/llumnix");
  const inodes = () => names(place).map((name) => Deno.statSync(join(place, name)).ino);
  await fixture.run([], env);
  const before = inodes();
  assert.equal((await fixture.run([], env)).code, 0);
  assert.deepEqual(inodes(), before);
});

Deno.test("without HOME, or with an unwritable one, TMPDIR is used", async () => {
  using fixture = await Fixture.make();
  const environments: Record<string, string>[] = [
    {},
    { HOME: "/dev/null/home" },
    { XDG_CACHE_HOME: "/dev/null/cache" },
    { HOME: "relative" },
  ];
  for (const env of environments) {
    await Deno.mkdir(fixture.cache);
    const { code, stderr } = await fixture.run([], { ...env, TMPDIR: fixture.cache });
    assert.equal(code, 0, stderr);
    assertUnpacked(join(fixture.cache, `llumnix-${Deno.uid()}`));
    await Deno.remove(fixture.cache, { recursive: true });
  }
});

Deno.test("a directory that somebody else may have put below TMPDIR is not trusted", async () => {
  using fixture = await Fixture.make();
  await Deno.mkdir(join(fixture.directory, "elsewhere"));
  await Deno.mkdir(fixture.cache);
  await Deno.symlink("../elsewhere", join(fixture.cache, `llumnix-${Deno.uid()}`));
  const { code } = await fixture.run([], { TMPDIR: fixture.cache });
  assert.equal(code, 126);
  assert.deepEqual(names(join(fixture.directory, "elsewhere")), []);
});

Deno.test("where nothing can be written, it says what to do", async () => {
  using fixture = await Fixture.make();
  const { code, stderr } = await fixture.run([], { TMPDIR: "/dev/null/tmp" });
  assert.equal(code, 126);
  assert.match(stderr, /^llumnix: cannot unpack into .* Set XDG_CACHE_HOME to a directory .*\n$/);
});

Deno.test("on a host of another kind it says for which it was built", async () => {
  using fixture = await Fixture.make();
  await Deno.writeTextFile(join(fixture.directory, "uname"), "#!/bin/sh\necho Linux riscv64\n", {
    mode: 0o755,
  });
  const { code, stdout, stderr } = await fixture.run([], {
    XDG_CACHE_HOME: fixture.cache,
    PATH: fixture.directory,
  });
  assert.deepEqual([code, stdout], [126, ""]);
  assert.match(stderr, /^llumnix: this file is for \w+ \w+, and this host is Linux riscv64\n$/);
});

Deno.test("a runtime that the C library of the host cannot start is told once, and not kept", async () => {
  using fixture = await Fixture.make("#!/bin/sh\n# \0GLIBC_2.27\0GLIBC_2.9\0GLIBC_2.2.5\nexit 1\n");
  const { code, stderr } = await fixture.run([], { XDG_CACHE_HOME: fixture.cache });
  assert.equal(code, 126);
  assert.equal(
    stderr,
    "llumnix: the runtime does not start here: it needs glibc 2.27 or later\n",
  );
  const kept = names(join(fixture.cache, "llumnix"));
  assert.deepEqual(kept.filter((name) => !/^llumnix-/.test(name)), []);
});

Deno.test("first runs at the same moment do not disturb each other", async () => {
  using fixture = await Fixture.make();
  const env = { XDG_CACHE_HOME: fixture.cache };
  const runs = await Promise.all(Array.from({ length: 8 }, () => fixture.run([], env)));
  assert.deepEqual(runs.map(({ code, stderr }) => [code, stderr]), Array(8).fill([0, ""]));
  assertUnpacked(join(fixture.cache, "llumnix"));
});

Deno.test("exit codes and signals are the program's", async () => {
  using fixture = await Fixture.make();
  const env = { XDG_CACHE_HOME: fixture.cache };
  assert.equal((await fixture.run(["exit"], env)).code, 7);
  assert.equal((await fixture.run(["signal"], env)).code, 128 + 15);
});

Deno.test("an executable that ends within its files does not run", async () => {
  using fixture = await Fixture.make();
  await fixture.run([], { XDG_CACHE_HOME: fixture.cache }); // the runtime is there, then
  const place = join(fixture.cache, "llumnix");
  await Deno.remove(join(place, names(place)[1]), { recursive: true });
  await Deno.truncate(fixture.executable, 4 * 4096 + 100);
  const { code } = await fixture.run([], { XDG_CACHE_HOME: fixture.cache, TMPDIR: "/dev/null" });
  assert.equal(code, 126);
  assert.match(names(place).join(), /^deno-.*-[0-9a-f]{16}$/);
});

Deno.test("a truncated executable does not run, and leaves nothing behind to run", async () => {
  using fixture = await Fixture.make();
  await Deno.truncate(fixture.executable, Deno.statSync(fixture.executable).size - 20);
  const { code } = await fixture.run([], { XDG_CACHE_HOME: fixture.cache, TMPDIR: "/dev/null" });
  assert.equal(code, 126);
  assert.match(names(join(fixture.cache, "llumnix")).join(), /^llumnix-1\.2\.3-[0-9a-f]{16}$/);
});
