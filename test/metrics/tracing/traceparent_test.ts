import assert from "node:assert/strict";
import { parseTraceparent } from "../../../src/metrics/tracing/traceparent.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c", spanId = "b7ad6b7169203331";

Deno.test("traceparent: the ids of the client's span, and whether it is sampled", () => {
  assert.deepEqual(parseTraceparent(`00-${traceId}-${spanId}-01`), {
    traceId,
    spanId,
    isSampled: true,
  });
  assert.equal(parseTraceparent(`00-${traceId}-${spanId}-00`)!.isSampled, false);
  assert.equal(parseTraceparent(` 00-${traceId}-${spanId}-03 `)!.isSampled, true);
});

Deno.test("traceparent: a later version may have more fields, this one may not", () => {
  assert.notEqual(parseTraceparent(`cc-${traceId}-${spanId}-01-what-comes`), null);
  assert.equal(parseTraceparent(`00-${traceId}-${spanId}-01-more`), null);
  assert.equal(parseTraceparent(`cc-${traceId}-${spanId}-01more`), null);
});

Deno.test("traceparent: what is not valid is no parent", () => {
  const bad = [
    "",
    "x",
    `ff-${traceId}-${spanId}-01`,
    `00-${"0".repeat(32)}-${spanId}-01`,
    `00-${traceId}-${"0".repeat(16)}-01`,
    `00-${traceId.toUpperCase()}-${spanId}-01`,
    `00-${traceId}0-${spanId}-01`,
    `00-${traceId}-${spanId}`,
    `00-${traceId}-${spanId}-0g`,
  ];
  for (const header of bad) assert.equal(parseTraceparent(header), null, header);
});
