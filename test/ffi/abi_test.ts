/** The bindings against the numbers of the real headers, which `deno task abi` has written down. */
import assert from "node:assert/strict";
import { type Abi, differences, signatureText } from "../../scripts/abi/abi.ts";
import { expectedAbi, expectedAbis, type LibraryKey } from "../../scripts/abi/expected.ts";

const measured: Record<string, Abi> = JSON.parse(
  await Deno.readTextFile(new URL("../../ffi/abi.json", import.meta.url)),
);

for (const [name, abi] of Object.entries(measured)) {
  const [key, version] = name.split(" ") as [LibraryKey, string];
  Deno.test(`the bindings agree with the headers of ${name}`, () => {
    assert.deepEqual(differences(expectedAbi(key, version), abi), []);
  });
}

Deno.test("every name of the bindings is in a header", () => {
  const missing = Object.entries(expectedAbis).flatMap(([key, expected]) => {
    const versions = Object.keys(measured).filter((name) => name.startsWith(`${key} `));
    const has = (part: keyof Abi, name: string) =>
      versions.some((version) => name in measured[version][part]);
    return (["functions", "structs", "constants"] as const).flatMap((part) =>
      Object.keys(expected[part]).filter((name) => !has(part, name))
    );
  });
  assert.deepEqual(missing, []);
});

Deno.test("what the headers require is required in every version", () => {
  // A function that only some versions have must be optional, or those without cannot be opened.
  for (const [key, abi] of Object.entries(expectedAbis)) {
    const versions = Object.keys(measured).filter((name) => name.startsWith(`${key} `));
    for (const name of Object.keys(abi.functions)) {
      const lacking = versions.filter((version) => !(name in measured[version].functions));
      if (lacking.length > 0) assert.ok(optional.has(name), `${name} is not in ${lacking}`);
    }
  }
});

const optional = new Set([
  ...["cudaMemcpyBatchAsync", "cuMemcpyBatchAsync", "cuMemcpyBatchAsync_v2"],
  "cuFuncGetParamInfo",
]);

Deno.test("a difference of each kind is noticed", () => {
  const expected: Abi = {
    functions: { f: "4(8,s64)" },
    structs: { S: { size: 16, fields: { a: 0, b: 8 } }, T: { fields: { a: 0 } } },
    constants: { C: 1 },
  };
  assert.deepEqual(differences(expected, { ...expected, functions: { f: "1(8,s64)" } }), [
    "f: the bindings have 4(8,s64), the header 1(8,s64)",
  ]);
  const structs = {
    S: { size: 24, fields: { a: 0, b: 16 } },
    // The bindings do not rely on the size of T.
    T: { size: 99, fields: { a: 0 } },
  };
  assert.deepEqual(differences(expected, { ...expected, structs }), [
    "sizeof(S): the bindings have 16, the header 24",
    "offsetof(S, b): the bindings have 8, the header 16",
  ]);
  assert.deepEqual(differences(expected, { ...expected, constants: { C: 2 } }), [
    "C: the bindings have 1, the header 2",
  ]);
});

Deno.test("a signature is written by sizes", () => {
  const parameters = ["buffer", "u64", "i32", "u8", "f32", { struct: ["u64", "u64"] }] as const;
  assert.equal(signatureText({ parameters, result: "i8" }), "1(8,8,4,1,f4,s16)");
  assert.equal(signatureText({ parameters: [], result: "void" }), "0()");
});
