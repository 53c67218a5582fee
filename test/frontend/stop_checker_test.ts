import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import { StopChecker, StopStrings } from "../../src/frontend/stop_checker.ts";

/** Shown text and match of pieces pushed one after another. */
function run(stops: string[], pieces: string[], include = false, firstThatMayStop = 0) {
  const checker = new StopChecker(new StopStrings(stops), include);
  const shown: string[] = [];
  for (const [index, piece] of pieces.entries()) {
    shown.push(checker.push(piece, index >= firstThatMayStop));
    if (checker.match !== null) break;
  }
  return { shown, text: shown.join("") + checker.flush(), match: checker.match };
}

/** The same by trying every end. */
function naive(stops: string[], text: string, include: boolean, firstEnd: number) {
  for (let end = firstEnd + 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop))
      .sort((a, b) => b.length - a.length)[0];
    if (ending) return { text: text.slice(0, include ? end : end - ending.length), match: ending };
  }
  return { text, match: null };
}

Deno.test("holds back what may begin a stop string", () => {
  assert.deepEqual(run(["STOP"], ["a S", "T", "O", "x ST"]).shown, ["a ", "", "", "STOx "]);
  assert.equal(run(["STOP"], ["a ST"]).text, "a ST");
});

Deno.test("cuts at a stop string across pieces", () => {
  assert.deepEqual(run(["STOP"], ["a S", "TO", "P b"]), {
    shown: ["a ", "", ""],
    text: "a ",
    match: "STOP",
  });
});

Deno.test("includes the stop string when asked, and then holds nothing back", () => {
  assert.deepEqual(run(["STOP"], ["a S", "TO", "P b"], true), {
    shown: ["a S", "TO", "P"],
    text: "a STOP",
    match: "STOP",
  });
});

Deno.test("the match that is complete first counts, the longest of those", () => {
  assert.equal(run(["abcd", "bc"], ["abcd"]).text, "a");
  assert.equal(run(["c", "bc"], ["abcd"]).match, "bc");
});

Deno.test("before the minimum nothing stops, but a beginning counts", () => {
  assert.deepEqual(run(["ab"], ["ab", "ab"], false, 1), {
    shown: ["", "ab"],
    text: "ab",
    match: "ab",
  });
  assert.equal(run(["ab"], ["xa", "b"], false, 1).text, "x");
  assert.equal(run(["ab"], ["ab", "x"], false, 1).match, null);
});

Deno.test("agrees with naive search on random text, stops and pieces", () => {
  const random = new Random(3);
  const word = (most: number) =>
    Array.from({ length: 1 + random.below(most) }, () => "ab"[random.below(2)]).join("");
  for (let round = 0; round < 3000; round++) {
    const stops = Array.from({ length: 1 + random.below(4) }, () => word(5));
    const pieces = Array.from({ length: 1 + random.below(10) }, () => word(4));
    const include = random.below(2) === 0;
    const first = random.below(3);
    const { text, match } = run(stops, pieces, include, first);
    const unstoppable = pieces.slice(0, first).join("").length;
    assert.deepEqual({ text, match }, naive(stops, pieces.join(""), include, unstoppable));
  }
});

Deno.test("never cuts a character in half", () => {
  const { shown } = run(["😀!"], ["a😀", "😁", "b"]);
  for (const piece of shown) assert.ok(piece.isWellFormed());
});

Deno.test("sixteen of the longest stop strings take two bytes a unit, and work in proportion to the text", () => {
  const strings = Array.from({ length: 16 }, (_, i) => "a".repeat(1000 + i) + "b");
  const { patterns } = new StopStrings(strings);
  let bytes = 0, lookups = 0;
  const counted = patterns.map(({ text, fallbacks }) => {
    bytes += fallbacks.byteLength;
    const get = (table: Uint16Array, index: string) => (lookups++, table[Number(index)]);
    return {
      text,
      fallbacks: new Proxy(fallbacks, { get: get as ProxyHandler<Uint16Array>["get"] }),
    };
  });
  assert.equal(bytes, 2 * strings.join("").length);
  const checker = new StopChecker({ patterns: counted }, false);
  // Each "c" undoes what hundreds of "a" built up: the worst case of the fallbacks.
  const piece = "a".repeat(5_000) + "c";
  for (let i = 0; i < 5; i++) checker.push(piece, true);
  assert.equal(checker.match, null);
  const most = strings.length * 5 * piece.length;
  assert.ok(lookups > 0 && lookups <= most, `${lookups} lookups of fallbacks, at most ${most}`);
});

Deno.test("strings of one array are prepared once", () => {
  const strings = ["a"];
  assert.equal(StopStrings.of(strings), StopStrings.of(strings));
  assert.notEqual(StopStrings.of(strings), StopStrings.of(["a"]));
});
