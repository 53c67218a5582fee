/** A successor that takes over or skips that, and then serves, dies or hangs: the program of a test. */
import { Predecessor } from "../../../src/roles/upgrade/successor.ts";

const predecessor = await Predecessor.fromEnvironment();
if (Deno.args[0] === "skip") await sayTakenOver();
if (Deno.args[0] === "insist") {
  await predecessor!.takeOver().catch(() => {});
  await sayTakenOver();
}
const handover = await predecessor!.takeOver();
if (handover.numInstances !== 2) throw new Error(`unexpected: ${JSON.stringify(handover)}`);
if (Deno.args[0] === "die") {
  console.log("the port is gone");
  Deno.exit(2);
}
if (Deno.args[0] === "hang") await new Promise((resolve) => setTimeout(resolve, 600_000));
await predecessor!.takenOver();
await predecessor!.finish(1234);

async function sayTakenOver(): Promise<never> {
  try {
    await predecessor!.takenOver();
  } catch (error) {
    console.log((error as Error).message);
  }
  Deno.exit(2);
}
