/**
 * Evaluates the default model as users meet it: starts `llumnix serve` without `--model` and asks it
 * through the chat API. Ends with code 1 if a figure is below its goal.
 *
 * deno task eval-model
 */
import { Random } from "../../src/core/random.ts";
import { startService } from "../bench/service.ts";
import { printTable } from "../bench/table.ts";
import { parseStory } from "./grammar.ts";
import { heldOutTurns, kinds, reading, storyRequest, type Turn } from "./samples.ts";

const CONCURRENCY = 32;
/** Samples of a kind that is not listed exhaustively. */
const SAMPLES = 200;

interface Question {
  readonly user: string;
  readonly isRight: (answer: string) => boolean;
}

interface Examination {
  readonly name: string;
  readonly questions: readonly Question[];
  /** Least share of right answers; null where there is no goal. */
  readonly goal: number | null;
}

const exact = ({ user, assistant }: Turn): Question => ({
  user,
  isRight: (answer) => answer === assistant,
});

function examinations(random: Random): Examination[] {
  const { sums, differences } = heldOutTurns(random);
  const many = (make: () => Question) => Array.from({ length: SAMPLES }, make);
  const requests = Array.from({ length: SAMPLES }, () => storyRequest(random));
  // Conversations of one turn; whether an answer is right needs no judgement.
  const one = (wanted: RegExp): Turn => {
    for (;;) {
      const [turn, ...rest] = kinds.other(random);
      if (rest.length === 0 && wanted.test(turn.user)) return turn;
    }
  };
  return [
    { name: "held-out sums of two-digit numbers", questions: sums.map(exact), goal: 0.99 },
    { name: "held-out differences, not negative", questions: differences.map(exact), goal: null },
    {
      name: "stories that the grammar makes",
      questions: requests.map(({ user }) => ({
        user,
        isRight: (answer) => parseStory(answer) !== null,
      })),
      goal: 0.95,
    },
    {
      name: "stories with the hero that was asked for",
      questions: requests.map(({ user, facts: { animal, name } }) => ({
        user,
        isRight: (answer) => {
          const told = parseStory(answer)?.facts;
          return told !== undefined && (animal ?? told.animal) === told.animal &&
            (name ?? told.name) === told.name;
        },
      })),
      goal: null,
    },
    {
      name: "questions about a story",
      questions: many(() => exact(reading(random, 1)[0])),
      goal: null,
    },
    { name: "counting", questions: many(() => exact(one(/^(please )?count/i))), goal: null },
    { name: "sorting", questions: many(() => exact(one(/^(please )?(sort|put)/i))), goal: null },
  ];
}

async function ask(port: number, user: string): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      messages: [{ role: "user", content: user }],
      temperature: 0,
      max_tokens: 200,
    }),
  });
  if (!response.ok) throw new Error(`the service answers ${await response.text()}`);
  return (await response.json()).choices[0].message.content;
}

/** Asks all questions of an examination. @returns the share of right answers, and the wrong answers */
async function examine(
  { questions }: Examination,
  answerTo: (user: string) => Promise<string>,
): Promise<{ share: number; wrong: string[] }> {
  const wrong: string[] = [];
  const next = questions.values();
  await Promise.all(Array.from({ length: CONCURRENCY }, async () => {
    for (const { user, isRight } of next) {
      const answer = await answerTo(user);
      if (!isRight(answer)) wrong.push(`${user} -> ${answer}`);
    }
  }));
  return { share: 1 - wrong.length / questions.length, wrong };
}

const percent = (share: number) => `${(share * 100).toFixed(1)}%`;

const rows: Record<string, string>[] = [];
const examples: string[] = [];
let isGood = true;
{
  await using service = await startService(["--disable-log-requests", "--max-num-seqs=32"]);
  const asked = new Map<string, Promise<string>>(); // at temperature 0 an answer is always the same
  const answerTo = (user: string) => {
    const answer = asked.get(user) ?? ask(service.port, user);
    asked.set(user, answer);
    return answer;
  };
  for (const examination of examinations(new Random(20261130))) {
    const { name, questions, goal } = examination;
    const { share, wrong } = await examine(examination, answerTo);
    if (goal !== null && share < goal) isGood = false;
    rows.push({
      "": name,
      "asked": `${questions.length}`,
      "right": percent(share),
      "goal": goal === null ? "" : percent(goal),
    });
    examples.push(...wrong.slice(0, 2));
  }
}
printTable("The default model, asked through the chat API at temperature 0", rows);
console.log(`\nWrong answers, for example:\n${examples.map((line) => `- ${line}`).join("\n")}`);
if (!isGood) Deno.exit(1);
