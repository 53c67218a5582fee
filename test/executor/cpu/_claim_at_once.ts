/**
 * Claims all of a made-up amount of memory that others have not claimed. The first plan is made only once
 * the other process of the test has read the claims too. Arguments: bytes, own name, other's name, directory.
 */
import { claimMemory } from "../../../src/executor/cpu/memory_claims.ts";

const [, bytes, own, other, directory] = Deno.args;
let numPlans = 0;
const { claimBytes } = await claimMemory(({ hostBytes }) => {
  if (numPlans++ === 0) {
    Deno.writeTextFileSync(`${directory}/${own}`, "");
    const deadlineMs = performance.now() + 60_000;
    while (!exists(`${directory}/${other}`) && performance.now() < deadlineMs) sleep(5);
  }
  return { claimBytes: Math.max(0, Number(bytes) - hostBytes) };
});
console.log(JSON.stringify({ claimBytes, numPlans }));
await Deno.stdin.readable.pipeTo(new WritableStream());
Deno.exit(0);

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
