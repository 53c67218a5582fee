import assert from "node:assert/strict";
import {
  fromErrorRecord,
  LlumnixError,
  ModelError,
  OverloadedError,
  RequestError,
  toErrorRecord,
  UnavailableError,
  UsageError,
} from "../../src/core/errors.ts";

const samples = [
  new UsageError("a"),
  new ModelError("b"),
  new RequestError("c", "top_p"),
  new RequestError("d"),
  new OverloadedError("e"),
  new OverloadedError("e", 30),
  new UnavailableError("f"),
  new LlumnixError("not_found", "g"),
  new LlumnixError("internal", "h"),
];

Deno.test("deliberate errors survive the wire with class, kind and message", () => {
  for (const error of samples) {
    const back = fromErrorRecord(JSON.parse(JSON.stringify(toErrorRecord(error))));
    assert.equal(back.constructor, error.constructor);
    assert.equal(back.name, error.name);
    assert.equal(back.kind, error.kind);
    assert.equal(back.message, error.message);
    if (error instanceof RequestError) assert.equal((back as RequestError).param, error.param);
    if (error instanceof OverloadedError) {
      assert.equal((back as OverloadedError).retryAfterSeconds, error.retryAfterSeconds);
    }
  }
});

Deno.test("anything else crosses as internal", () => {
  assert.deepEqual(toErrorRecord(new TypeError("x")), { kind: "internal", message: "x" });
  assert.deepEqual(toErrorRecord("text"), { kind: "internal", message: "text" });
  assert.deepEqual(toErrorRecord(undefined), { kind: "internal", message: "undefined" });
});

Deno.test("a cause is kept", () => {
  const cause = new Error("disk");
  assert.equal(new ModelError("m", { cause }).cause, cause);
});
