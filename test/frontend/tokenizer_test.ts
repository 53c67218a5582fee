import assert from "node:assert/strict";
import { ModelError } from "../../src/core/errors.ts";
import { createTokenizer, loadTokenizer } from "../../src/frontend/tokenizer.ts";
import {
  fixtureCases,
  fixtureDirectory,
  fixtureNames,
  fixtureTokenizer,
  isSpecial,
  readFixture,
} from "./fixtures.ts";

for (const name of fixtureNames) {
  const tokenizer = fixtureTokenizer(name);
  const cases = fixtureCases(name);

  Deno.test(`${name}: encodes as transformers does`, () => {
    for (const [text, withSpecial, without] of cases.encode) {
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: true }), withSpecial, text);
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), without, text);
    }
  });

  Deno.test(`${name}: decodes as transformers does`, () => {
    for (const [ids, text, skipped] of cases.decode) {
      assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), text, `${ids}`);
      assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), skipped, `${ids}`);
    }
  });

  Deno.test(`${name}: never promises more tokens than there are`, () => {
    for (const [text, , without] of cases.encode) {
      assert.ok(tokenizer.leastTokens(text) <= without.length, text);
    }
  });

  if (cases.chat) {
    Deno.test(`${name}: renders chats as transformers does`, () => {
      for (const [messages, addGenerationPrompt, text] of cases.chat!) {
        assert.equal(tokenizer.chatTemplate!.render(messages, addGenerationPrompt), text);
      }
    });
  }
}

Deno.test("special tokens come from both files", () => {
  const llama = fixtureTokenizer("llama2");
  assert.equal(llama.eosTokenId, 2);
  assert.ok(isSpecial(llama, 0) && !isSpecial(llama, 300));
  const qwen = fixtureTokenizer("qwen");
  assert.equal(qwen.display(qwen.eosTokenId!).token, "<|im_end|>");
});

Deno.test("bytes of tokens join to the bytes of the text", () => {
  const text = "größer 你好 😀 мир";
  for (const name of ["llama3", "qwen", "llama2", "mistral"] as const) {
    const tokenizer = fixtureTokenizer(name);
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    const bytes = ids.flatMap((id) => [...tokenizer.display(id).bytes]);
    assert.equal(new TextDecoder().decode(Uint8Array.from(bytes)).trimStart(), text);
  }
});

Deno.test("ids outside the vocabulary decode to nothing", () => {
  const tokenizer = fixtureTokenizer("llama3");
  const ids = tokenizer.encode("ab", { addSpecialTokens: false });
  assert.equal(tokenizer.decode([999999, ...ids, -1], { skipSpecialTokens: false }), "ab");
  assert.deepEqual([...tokenizer.display(999999).bytes], []);
  assert.equal(tokenizer.display(999999).token, "");
});

Deno.test("a lone surrogate is encoded as U+FFFD", () => {
  const tokenizer = fixtureTokenizer("llama3");
  const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
  assert.deepEqual(encode("a\ud800b"), encode("a\ufffdb"));
});

Deno.test("loads a directory", async () => {
  const tokenizer = await loadTokenizer(fixtureDirectory("mistral"));
  assert.equal(tokenizer.vocabSize, fixtureTokenizer("mistral").vocabSize);
  assert.ok(tokenizer.chatTemplate);
});

Deno.test("chat_template.jinja comes before tokenizer_config.json", async () => {
  const directory = await Deno.makeTempDir();
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(`${fixtureDirectory("qwen")}/${file}`, `${directory}/${file}`);
  }
  await Deno.writeTextFile(`${directory}/chat_template.jinja`, "{{ messages[0].content }}!");
  const tokenizer = await loadTokenizer(directory);
  assert.equal(tokenizer.chatTemplate!.render([{ role: "user", content: "hi" }], true), "hi!");
  await Deno.remove(directory, { recursive: true });
});

Deno.test("a directory without tokenizer.json is refused with what to do", async () => {
  const directory = await Deno.makeTempDir();
  await assert.rejects(
    loadTokenizer(directory),
    (error) => error instanceof ModelError && /--skip-tokenizer-init/.test(error.message),
  );
  await Deno.mkdir(`${directory}/tokenizer.json`);
  await assert.rejects(loadTokenizer(directory), /tokenizer\.json cannot be read/);
  await Deno.remove(`${directory}/tokenizer.json`);
  await Deno.writeTextFile(`${directory}/tokenizer.json`, "{");
  await assert.rejects(loadTokenizer(directory), /tokenizer\.json is not valid JSON/);
  await Deno.writeTextFile(`${directory}/tokenizer.json`, "[]");
  await assert.rejects(loadTokenizer(directory), /not a JSON object/);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("files that cannot be used are named with their directory", async () => {
  const directory = await Deno.makeTempDir();
  const refusal = async (name: string, text: string, message: RegExp) => {
    await Deno.writeTextFile(`${directory}/${name}`, text);
    await assert.rejects(loadTokenizer(directory), (error) => {
      assert.ok(error instanceof ModelError);
      assert.ok(error.message.startsWith(`In ${directory}: `), error.message);
      assert.match(error.message, message);
      return true;
    });
  };
  await refusal("tokenizer.json", "{}", /: tokenizer.json has no model/);
  const usable = JSON.stringify(readFixture("llama2", "tokenizer.json"));
  await Deno.writeTextFile(`${directory}/tokenizer.json`, usable);
  const config = JSON.stringify({ chat_template: "{% for %}" });
  await refusal("tokenizer_config.json", config, /: chat_template of tokenizer_config.json cannot/);
  await refusal("chat_template.jinja", "{% if %}", /: chat_template.jinja cannot be used/);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("tokenizers that cannot be streamed or understood are refused", () => {
  const tokenizerConfig = {};
  const tokenizerJson = readFixture("llama2", "tokenizer.json");
  const withPart = (part: Record<string, unknown>) => () =>
    createTokenizer({ tokenizerJson: { ...tokenizerJson, ...part }, tokenizerConfig });
  assert.throws(withPart({ decoder: null }), /decoder that is not supported: none/);
  assert.throws(withPart({ decoder: { type: "CTC" } }), /not supported: CTC/);
  assert.throws(withPart({ model: undefined }), /has no model/);
  assert.throws(withPart({ model: { type: "Odd" } }), /cannot be used: .*Odd/);
  assert.throws(withPart({ normalizer: { type: "Odd" } }), ModelError);
});
