/** The real UCX with its CUDA transports over the software device: a put between two device pools. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { libraries } from "../../../ffi/library_search.ts";
import { realFiles } from "../real_libraries.ts";
import { directory } from "./device.ts";
import type { Seen, Sent } from "./ucx_peer.ts";

const folderOf = (file: string) => file.slice(0, file.lastIndexOf("/"));
/** UCX in the PyPI wheel libucx-cu13 has these transports, Debian's has not. */
const files = realFiles(libraries.ucp).filter((file) =>
  existsSync(`${folderOf(file)}/ucx/libuct_cuda.so.0`)
);

function peer(role: string, file: string, ...rest: string[]): Deno.ChildProcess {
  const script = decodeURIComponent(new URL("./ucx_peer.ts", import.meta.url).pathname);
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, role, file, ...rest],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    // UCX finds the driver by its soname.
    env: { LD_LIBRARY_PATH: directory!, LLUMNIX_SOFTWARE_DEVICE: "memory=64M" },
  }).spawn();
}

/** What a peer writes until its end. */
async function outputOf(child: Deno.ChildProcess): Promise<string> {
  const { success, stdout, stderr } = await child.output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

async function putBetweenPools(file: string): Promise<void> {
  const target = peer("target", file);
  // Its first line is the offer: the rest comes when its input ends.
  const [first, rest] = target.stdout.tee();
  const reader = first.pipeThrough(new TextDecoderStream()).getReader();
  let offer = "";
  while (!offer.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) break;
    offer += value;
  }
  void reader.cancel();
  assert(offer.includes("\n"), "the target ended early");
  const initiator = peer("initiator", file, offer.split("\n")[0]);
  const sent: Sent = JSON.parse(await outputOf(initiator));
  await target.stdin.close();
  const seen: Seen = JSON.parse((await new Response(rest).text()).trim().split("\n")[1]);
  await target.stderr.cancel();
  assert((await target.status).success);
  assert.deepEqual(seen.values, [2]);
  assert(sent.memoryTypes.includes("cuda"));
  assert(sent.transports.includes("cuda_ipc"), sent.transports.join());
  assert.equal(sent.opened, 1);
}

const reason = directory === null
  ? "no software device"
  : "no UCX with CUDA; LLUMNIX_TEST_WHEELS can name a directory with the wheel libucx-cu13";
if (files.length === 0 || directory === null) {
  const name = `real UCX puts between device pools by cuda_ipc (skipped: ${reason})`;
  Deno.test({ name, ignore: true, fn: () => {} });
} else {
  for (const file of files) {
    Deno.test(`real UCX puts between device pools by cuda_ipc: ${file.split("/").at(-1)}`, () =>
      putBetweenPools(file));
  }
}
