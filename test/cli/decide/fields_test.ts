import assert from "node:assert/strict";
import {
  amount,
  amountOrNull,
  amounts,
  count,
  type Fields,
  oneOf,
  readRecord,
  records,
  text,
  truth,
  unread,
} from "../../../src/cli/decide/fields.ts";

const fields = {
  name: text("A name."),
  blocks: count("Blocks.", { default: 7 }),
  share: amount("A share.", { default: 0.5 }),
  free: amountOrNull("Free."),
  shares: amounts("Shares."),
  is_there: truth("There.", { default: true }),
  kind: oneOf("Kind.", { choices: ["x", "y"], default: "x" }),
  children: records("Children.", { id: text("Id.") }, { default: [] }),
  rest: unread("Rest."),
};

function refuse(value: unknown, message: string, where?: string): void {
  assert.throws(() => readRecord(value, fields as Fields, where), { name: "UsageError", message });
}

Deno.test("fields: what is left out has its default", () => {
  assert.deepEqual(readRecord({ name: "n" }, fields), {
    name: "n",
    blocks: 7,
    share: 0.5,
    free: null,
    shares: [],
    is_there: true,
    kind: "x",
    children: [],
    rest: null,
  });
});

Deno.test("fields: what is given is kept", () => {
  const given = {
    name: "n",
    blocks: 0,
    share: 1.25,
    free: 3,
    shares: [1],
    is_there: false,
    kind: "y",
    children: [{ id: "a" }],
    rest: [1],
  };
  assert.deepEqual(readRecord(given, fields), given);
});

Deno.test("fields: unknown ones name the nearest, missing ones what is expected", () => {
  refuse({ name: "n", blocsk: 1 }, "unknown field blocsk; did you mean blocks?");
  refuse({ name: "n", zzz: 1 }, "unknown field zzz (llumnix decide --help lists the fields)");
  refuse({}, "name is missing: expected text that is not empty");
  refuse(
    { name: "n", toString: 1 },
    "unknown field toString (llumnix decide --help lists the fields)",
  );
  const nested = { name: "n", children: [{ id: "a" }, { di: "b" }] };
  refuse(nested, "children[1]: unknown field di; did you mean id?");
  refuse({ name: "n", children: [{ id: 1 }] }, "children[0].id: 1 is not text that is not empty");
});

Deno.test("fields: values of another form", () => {
  for (const blocks of [-1, 1.5, "1", null, true, 2 ** 60]) {
    const message = `blocks: ${JSON.stringify(blocks)} is not a whole number of at least 0`;
    refuse({ name: "n", blocks }, message);
  }
  for (const share of [-1, "1", null]) {
    refuse({ name: "n", share }, `share: ${JSON.stringify(share)} is not a number of at least 0`);
  }
  refuse({ name: "n", share: Infinity }, "share: Infinity is not a number of at least 0");
  refuse(
    { name: "n", shares: [1, Infinity] },
    "shares: [ 1, Infinity ] is not a list of numbers at least 0",
  );
  refuse({ name: "n", kind: "z" }, 'kind: "z" is not one of x, y');
  refuse({ name: "n", is_there: 1 }, "is_there: 1 is not true or false");
  refuse({ name: "n", children: {} }, "children: {} is not a list of records");
  for (const value of [null, [], 3, "x"]) {
    refuse(value, 'expected a JSON object, such as {"...": ...}');
  }
});
