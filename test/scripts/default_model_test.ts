/** What the default model is trained on, and what is committed of it. */
import assert from "node:assert/strict";
import {
  type Facts,
  parseStory,
  plotNames,
  tell,
  withArticle,
} from "../../scripts/default_model/grammar.ts";
import {
  heldOutTurns,
  isHeldOut,
  kinds,
  plainText,
  twoDigitPairs,
} from "../../scripts/default_model/samples.ts";
import { Random } from "../../src/core/random.ts";
import { loadTokenizer } from "../../src/frontend/tokenizer.ts";
import { storyModelDirectory } from "../../src/model/builtin.ts";

Deno.test("a story parses into the words that it was told with", () => {
  const random = new Random(1);
  for (const plot of plotNames) {
    for (let i = 0; i < 100; i++) {
      const facts: Facts = {};
      const story = tell(plot, facts, random);
      assert.deepEqual(parseStory(story), { plot, facts }, story);
    }
  }
});

Deno.test("a story that breaks a rule of the grammar does not parse", () => {
  const story =
    "There once was an old bear called Tom. He lived in a red hut near the lake. Tom wanted to " +
    "learn to sing. At first it was very hard. Nora the otter was good at it and showed him how. " +
    "They practised every day. At last Tom could sing. He was very proud. Tom never forgot what " +
    "Nora had done.";
  assert.equal(parseStory(story)?.plot, "skill");
  const broken: readonly (readonly [string, string])[] = [
    ["an old", "a old"],
    ["He lived", "She lived"], // Tom is a boy
    ["could sing", "could dance"], // he learned to sing
    ["what Nora", "what Ida"],
    ["Nora the otter", "Tom the otter"], // two of one name
    ["They practised every day. ", ""],
    ["had done.", "had done. And"],
  ];
  for (const [right, wrong] of broken) {
    assert.ok(story.includes(right), right);
    assert.equal(parseStory(story.replace(right, wrong)), null, wrong);
  }
});

Deno.test("held-out pairs are about a tenth, in either order, and in no training sample", () => {
  const share = twoDigitPairs(true).length / 8100;
  assert.ok(share > 0.08 && share < 0.12, `${share}`);
  assert.equal(isHeldOut(10, 17), isHeldOut(17, 10));
  const random = new Random(2);
  let seen = 0;
  for (let i = 0; i < 5_000; i++) {
    const said = [kinds.arithmetic, kinds.mixed]
      .flatMap((make) => make(random))
      .map(({ assistant }) => assistant);
    for (const text of [...said, plainText(random)]) {
      for (const [, a, b] of text.matchAll(/(\d+) [+-] (\d+) =/g)) {
        assert.ok(!isHeldOut(Number(a), Number(b)), text);
        seen++;
      }
    }
  }
  assert.ok(seen > 5_000);
  for (const { assistant } of Object.values(heldOutTurns(random)).flat()) {
    const [, a, b] = assistant.match(/^(\d+) [+-] (\d+) =/)!;
    assert.ok(isHeldOut(Number(a), Number(b)), assistant);
  }
});

Deno.test("an article fits its word", () => {
  assert.deepEqual(["owl", "fox", "old bear"].map(withArticle), ["an owl", "a fox", "an old bear"]);
});

Deno.test("each digit is a token, and a chat has the tokens that the model was trained on", async () => {
  const tokenizer = await loadTokenizer(storyModelDirectory());
  const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
  assert.equal(encode("1234567890").length, 10);
  const text = tokenizer.chatTemplate!.render([{ role: "user", content: "12 + 34" }], true);
  assert.equal(text, "<|bos|><|user|>12 + 34<|end|><|assistant|>");
  const [bos, end, user, assistant] = [0, 1, 4, 5];
  assert.deepEqual(encode(text), [bos, user, ...encode("12 + 34"), end, assistant]);
});

Deno.test("the committed weights are the ones that were evaluated, and at most 8 MB", async () => {
  const bytes = await Deno.readFile(`${storyModelDirectory()}/model.safetensors`);
  assert.ok(bytes.length <= 8e6);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
  const readme = await Deno.readTextFile(new URL("../../src/model/README.md", import.meta.url));
  assert.ok(readme.includes(digest), `src/model/README.md does not name the weights ${digest}`);
});
