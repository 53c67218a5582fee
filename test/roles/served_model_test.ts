import assert from "node:assert/strict";
import { findModel, openTokenizer } from "../../src/roles/served_model.ts";
import { engineOptions } from "../instance/support.ts";

Deno.test("a simulated model without files is served with the byte tokenizer, and says so", async () => {
  const options = engineOptions({ device: "sim", model: "llama-7b" });
  const model = await findModel(options);
  assert.equal(model.maxModelLen, 13616);
  assert.deepEqual(model.warnings, [
    "llama-7b is simulated: its output has no meaning.",
    "There are no files of llama-7b: a token is a byte (built-in tokenizer).",
  ]);
  const tokenizer = await openTokenizer({ ...options, chatTemplate: null }, model);
  assert.ok(tokenizer !== null);
  const silent = await findModel({ ...options, skipTokenizerInit: true });
  assert.equal(silent.warnings.length, 1);
});

Deno.test("a model that cannot be simulated is refused before anything starts", async () => {
  await assert.rejects(findModel(engineOptions({ device: "sim", model: "gpt" })), {
    name: "UsageError",
    message: /^There is no built-in profile of gpt/,
  });
});

Deno.test("--chat-template is a file or Jinja, and comes before the model's own", async () => {
  const options = engineOptions({});
  const open = async (chatTemplate: string) =>
    await openTokenizer({ ...options, chatTemplate }, await findModel(options));
  const file = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(file, "file:{{ messages[0].content }}");
    const messages = [{ role: "user", content: "a" }];
    assert.equal((await open(file))!.chatTemplate!.render(messages, true), "file:a");
    const inline = await open("inline:{{ messages[0].content }}");
    assert.equal(inline!.chatTemplate!.render(messages, true), "inline:a");
    await assert.rejects(open("no-such-file"), /--chat-template no-such-file: expected a file/);
  } finally {
    Deno.removeSync(file);
  }
});
