/**
 * Compares the bindings with the headers of CUDA, NCCL, cuBLASLt and UCX, which it takes from wheels of
 * Python; needs python3 with pip, and g++. Downloads 900 MB the first time.
 *
 * `deno task abi DIRECTORY` keeps the wheels in the directory. With `--write` the numbers of the
 * headers become `ffi/abi.json`, against which a test holds the bindings without any header.
 */
import { parseArgs } from "@std/cli/parse-args";
import { type Abi, differences } from "./abi/abi.ts";
import { expectedAbi } from "./abi/expected.ts";
import { measure } from "./abi/measure.ts";
import { checkedVersions, headerOf } from "./abi/wheels.ts";

const numbers = new URL("../ffi/abi.json", import.meta.url);

if (import.meta.main) {
  const { write, _: [directory] } = parseArgs(Deno.args, { boolean: ["write"] });
  if (directory === undefined) {
    console.error("usage: deno task abi DIRECTORY [--write]");
    Deno.exit(2);
  }
  await Deno.mkdir(String(directory), { recursive: true });
  const measured: Record<string, Abi> = {};
  let wrong = 0;
  for (const checked of checkedVersions) {
    const name = `${checked.key} ${checked.version}`;
    const header = await headerOf(checked, await Deno.realPath(String(directory)));
    const expected = expectedAbi(checked.key, checked.version);
    const found = measured[name] = await measure(header, expected);
    const lines = differences(expected, found);
    wrong += lines.length;
    const count = (part: object) => Object.keys(part).length;
    console.log(
      `${name}: ${count(found.functions)} functions, ${count(found.structs)} structs, ` +
        `${count(found.constants)} constants, ${lines.length} differences`,
    );
    for (const line of lines) console.log(`  ${line}`);
  }
  if (write) await Deno.writeTextFile(numbers, JSON.stringify(measured, null, 2) + "\n");
  if (wrong > 0) Deno.exit(1);
}
