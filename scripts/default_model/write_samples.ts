/**
 * Writes the training data of the default model: one JSON line a conversation,
 * `[kind, system or null, user, assistant, user, ...]`, or `["plain", text]`. Kinds that begin with
 * "test" are not trained on: held-out sums and differences, and requests for stories.
 *
 * deno run -A scripts/default_model/write_samples.ts FILE [COUNT_PER_KIND]
 */
import { Random } from "../../src/core/random.ts";
import { heldOutTurns, kinds, plainText, storyRequest, systemPrompts } from "./samples.ts";

/** How many of each kind: arithmetic must not repeat, stories may. */
const shares = { arithmetic: 8, facts: 4, story: 3, reading: 2, other: 3, mixed: 1 } as const;

const [path, count = "7500"] = Deno.args;
const random = new Random(20261129);
const encoder = new TextEncoder();
const file = Deno.createSync(path);

function write(lines: string[]): void {
  const bytes = encoder.encode(lines.join("\n") + "\n");
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

for (const [kind, make] of Object.entries(kinds)) {
  const total = Number(count) * shares[kind as keyof typeof kinds];
  for (let done = 0; done < total; done += 10_000) {
    const lines = Array.from({ length: Math.min(10_000, total - done) }, () => {
      const system = random.uniform() < 0.05 ? systemPrompts[random.below(4)] : null;
      const texts = make(random).flatMap(({ user, assistant }) => [user, assistant]);
      return JSON.stringify([kind, system, ...texts]);
    });
    write(lines);
  }
}
write(Array.from({ length: Number(count) }, () => JSON.stringify(["plain", plainText(random)])));
for (const [kind, turns] of Object.entries(heldOutTurns(random))) {
  write(
    turns.map(({ user, assistant }) => JSON.stringify([`test ${kind}`, null, user, assistant])),
  );
}
const requests = Array.from({ length: 200 }, () => storyRequest(random).user);
write(requests.map((user) => JSON.stringify(["test stories", null, user])));
file.close();
