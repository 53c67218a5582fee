/** Conversations that the default model is trained on, and the ones that it is tested on. */
import type { Random } from "../../src/core/random.ts";
import { type Facts, type PlotName, plotNames, slotWords, tell, withArticle } from "./grammar.ts";

const names = [...slotWords.name, ...slotWords.name2];

/** What the user says, and what the model shall answer. */
export interface Turn {
  readonly user: string;
  readonly assistant: string;
}

const offered = "I can tell stories, add and subtract, count, and sort numbers.";

function pick<T>(random: Random, list: readonly T[]): T {
  return list[random.below(list.length)];
}

/**
 * Whether a pair of numbers is only tested, never trained on: about one in ten, in either order, for
 * sums and differences alike.
 */
export function isHeldOut(a: number, b: number): boolean {
  const pair = Math.min(a, b) * 128 + Math.max(a, b);
  return (Math.imul(pair ^ (pair >>> 5), 0x9e3779b1) >>> 16) % 10 === 0;
}

/** All pairs of two-digit numbers, held out or not. */
export function twoDigitPairs(heldOut: boolean): [number, number][] {
  const numbers = Array.from({ length: 90 }, (_, i) => 10 + i);
  return numbers.flatMap((a) => numbers.map((b): [number, number] => [a, b]))
    .filter(([a, b]) => isHeldOut(a, b) === heldOut);
}

type Phrasing = (a: number, b: number) => string;

/** Questions for a + b. */
export const sumQuestions: readonly Phrasing[] = [
  (a, b) => `What is ${a} + ${b}?`,
  (a, b) => `What is ${a} plus ${b}?`,
  (a, b) => `What's ${a}+${b}?`,
  (a, b) => `what is ${a}+${b}`,
  (a, b) => `${a} + ${b}`,
  (a, b) => `${a} + ${b} =`,
  (a, b) => `${a}+${b}=?`,
  (a, b) => `How much is ${a} + ${b}?`,
  (a, b) => `How much is ${a} plus ${b}?`,
  (a, b) => `Add ${a} and ${b}.`,
  (a, b) => `Add ${b} to ${a}`,
  (a, b) => `Calculate ${a} + ${b}.`,
  (a, b) => `Please compute ${a} + ${b}`,
  (a, b) => `What is the sum of ${a} and ${b}?`,
  (a, b) => `Can you add ${a} and ${b}?`,
  (a, b) => `And ${a} + ${b}?`,
];

/** Questions for a - b. */
export const differenceQuestions: readonly Phrasing[] = [
  (a, b) => `What is ${a} - ${b}?`,
  (a, b) => `What is ${a} minus ${b}?`,
  (a, b) => `What's ${a}-${b}?`,
  (a, b) => `what is ${a}-${b}`,
  (a, b) => `${a} - ${b}`,
  (a, b) => `${a} - ${b} =`,
  (a, b) => `${a}-${b}=?`,
  (a, b) => `How much is ${a} - ${b}?`,
  (a, b) => `How much is ${a} minus ${b}?`,
  (a, b) => `Subtract ${b} from ${a}.`,
  (a, b) => `Calculate ${a} - ${b}.`,
  (a, b) => `Please compute ${a} - ${b}`,
  (a, b) => `What is the difference of ${a} and ${b}?`,
  (a, b) => `Can you subtract ${b} from ${a}?`,
  (a, b) => `And ${a} - ${b}?`,
];

/** The answer to a sum. It repeats the question, so that digits are always at the same distance. */
export const sumAnswer: Phrasing = (a, b) => `${a} + ${b} = ${a + b}`;
/** The answer to a difference. */
export const differenceAnswer: Phrasing = (a, b) => `${a} - ${b} = ${a - b}`;

/** A pair to train on: mostly two-digit numbers. */
function trainedPair(random: Random): [number, number] {
  for (;;) {
    const number = () => random.uniform() < 0.9 ? 10 + random.below(90) : random.below(10);
    const [a, b] = [number(), number()];
    if (!isHeldOut(a, b)) return [a, b];
  }
}

function sum(random: Random): Turn {
  const [a, b] = trainedPair(random);
  return { user: pick(random, sumQuestions)(a, b), assistant: sumAnswer(a, b) };
}

function difference(random: Random): Turn {
  let [a, b] = trainedPair(random);
  if (a < b && random.uniform() < 0.7) [a, b] = [b, a];
  return { user: pick(random, differenceQuestions)(a, b), assistant: differenceAnswer(a, b) };
}

/** A sum or difference about things. */
function wordProblem(random: Random): Turn {
  let [a, b] = trainedPair(random);
  const name = pick(random, names);
  const thing = pick(random, ["apples", "nuts", "books", "stones", "shells", "coins"]);
  if (random.uniform() < 0.5) {
    const gain = pick(random, ["gets", "finds", "buys"]);
    return {
      user: `${name} has ${a} ${thing} and ${gain} ${b} more. How many ${thing} does ${name} have?`,
      assistant: `${sumAnswer(a, b)}, so ${name} has ${a + b} ${thing}.`,
    };
  }
  if (a < b) [a, b] = [b, a];
  const loss = pick(random, ["loses", "gives away", "sells"]);
  return {
    user: `${name} has ${a} ${thing} and ${loss} ${b}. How many ${thing} are left?`,
    assistant: `${differenceAnswer(a, b)}, so ${name} has ${a - b} ${thing}.`,
  };
}

function counting(random: Random): Turn {
  const length = 3 + random.below(13);
  const low = random.uniform() < 0.4 ? 1 : random.below(100 - length);
  const up = Array.from({ length }, (_, i) => low + i);
  const high = low + length - 1;
  if (random.uniform() < 0.3) {
    return {
      user: pick(random, [
        `Count down from ${high} to ${low}.`,
        `Count backwards from ${high} to ${low}`,
      ]),
      assistant: up.toReversed().join(", "),
    };
  }
  const questions = [`Count from ${low} to ${high}.`, `count from ${low} to ${high}`];
  if (low === 1) questions.push(`Count to ${high}.`, `Please count to ${high}`);
  return { user: pick(random, questions), assistant: up.join(", ") };
}

function sorting(random: Random): Turn {
  const numbers = Array.from({ length: 3 + random.below(4) }, () => random.below(100));
  const list = numbers.join(", ");
  const user = pick(random, [
    `Sort ${list}.`,
    `Sort these numbers: ${list}`,
    `Put ${list} in order.`,
    `Please sort ${list}`,
  ]);
  return { user, assistant: numbers.toSorted((a, b) => a - b).join(", ") };
}

const greetings = ["Hello! How can I help you?", "Hi! What can I do for you?"];
const smallTalk: readonly (readonly [users: readonly string[], answers: readonly string[]])[] = [
  [[
    ...["Hello", "Hello!", "Hi", "hi", "Hi!", "hello", "Hey", "Hi there!", "Hello there", "hey"],
    ...["Good morning", "Good evening!", "Good day.", "Hello, world!"],
  ], greetings],
  [[
    ...["What are you?", "Who are you?", "what are you", "who are you?", "Tell me about yourself."],
    ...["What is your name?", "Introduce yourself.", "Are you a robot?", "Which model are you?"],
  ], [`I am llumnix-story, a very small language model. ${offered}`]],
  [[
    ...["What can you do?", "Help", "help", "How can you help me?", "What do you know?"],
    ...["What should I ask you?", "Can you help me?"],
  ], [offered]],
  [["How are you?", "How are you today?", "how are you", "How is it going?"], [
    "I am fine, thank you. How can I help you?",
  ]],
  [["Thank you", "Thanks!", "thanks", "Thank you very much.", "Great, thank you!"], [
    "You are welcome!",
  ]],
  [["Bye", "Goodbye!", "bye", "See you later.", "Good night"], ["Goodbye!"]],
];

function talk(random: Random): Turn {
  const [users, answers] = pick(random, smallTalk);
  return { user: pick(random, users), assistant: pick(random, answers) };
}

/** A question that the model cannot answer, and says so. */
function unknown(random: Random): Turn {
  const topic = () =>
    pick(random, [
      ...[
        "France",
        "Japan",
        "the moon",
        "the sky",
        "water",
        "history",
        "music",
        "physics",
        "Paris",
      ],
      ...["the weather", "love", "computers", "my cat", "football", "a quicksort", "the president"],
      ...["Python", "machine learning", "life", "the ocean", "the sun", "time", "chess", "my car"],
    ]);
  const user = pick(random, [
    () => `What is the capital of ${topic()}?`,
    () => `Why is ${topic()} so big?`,
    () => `Who invented ${topic()}?`,
    () => `Explain ${topic()} to me.`,
    () => `Write a poem about ${topic()}.`,
    () => `Write code for ${topic()}`,
    () => `What is the meaning of ${topic()}?`,
    () => `What do you think about ${topic()}?`,
    () => `Translate ${topic()} into German.`,
    () => `How does ${topic()} work?`,
    () => `Where is ${topic()}?`,
    () => `Is ${topic()} better than ${topic()}?`,
    () => `What is ${topic()}?`,
    () => `Describe ${topic()} in ${2 + random.below(99)} words.`,
  ])();
  return { user, assistant: `I am sorry, I do not know that. ${offered}` };
}

/** A request for a story, and what the story must have. */
export interface StoryRequest {
  readonly user: string;
  readonly facts: Facts;
}

/** A request for a story, about something or not. */
export function storyRequest(random: Random): StoryRequest {
  const facts: Facts = {};
  const verb = pick(random, ["Tell me a", "tell me a", "Write a", "Please tell me a", "Tell a"]);
  const length = pick(random, ["", "short ", "little "]);
  let user = `${verb} ${length}story`;
  if (random.uniform() < 0.7) {
    facts.animal = pick(random, slotWords.animal);
    user += ` about ${withArticle(facts.animal)}`;
    if (random.uniform() < 0.5) {
      facts.name = pick(random, slotWords.name);
      user += ` named ${facts.name}`;
    }
  }
  return { user: user + pick(random, [".", "", "!"]), facts };
}

/** Questions about a story, with their answers. */
function storyQuestions(plot: PlotName, facts: Readonly<Facts>): Turn[] {
  const { name, name2, animal, animal2, adj, place, colour, object, skill } = facts;
  const turns: Turn[] = [
    { user: `What is the name of the ${animal}?`, assistant: `The ${animal} is named ${name}.` },
    { user: `Who is ${name}?`, assistant: `${name} is ${withArticle(adj!)} ${animal}.` },
    { user: `What animal is ${name}?`, assistant: `${name} is ${withArticle(animal!)}.` },
    { user: `Who is ${name2}?`, assistant: `${name2} is ${withArticle(animal2!)}.` },
  ];
  if (place !== undefined) {
    turns.push({
      user: `Where does ${name} live?`,
      assistant: `${name} lives near the ${place}.`,
    });
  }
  if (plot === "found" || plot === "lost") {
    const did = plot === "found" ? "find" : "lose";
    const thing = `${withArticle(colour!)} ${object}`;
    turns.push(
      { user: `What did ${name} ${did}?`, assistant: `${name} ${plot} ${thing}.` },
      { user: `What colour was the ${object}?`, assistant: `The ${object} was ${colour}.` },
    );
  }
  if (plot === "skill") {
    turns.push({
      user: `What did ${name} learn?`,
      assistant: `${name} learned to ${skill}.`,
    });
  }
  if (plot !== "found") {
    const [helper, helped] = plot === "storm" ? [name, name2] : [name2, name];
    turns.push({ user: `Who helped ${helped}?`, assistant: `${helper} helped ${helped}.` });
  }
  return turns;
}

/** So many of the questions about a story, at most, in random order. */
function storyQuiz(plot: PlotName, facts: Readonly<Facts>, most: number, random: Random): Turn[] {
  const keyed = storyQuestions(plot, facts).map((turn) => ({ turn, key: random.uniform() }));
  return keyed.sort((a, b) => a.key - b.key).slice(0, most).map(({ turn }) => turn);
}

/** Some short sentences about one to three heroes, and questions about them. */
function facts(random: Random): Turn[] {
  const words = <T>(list: readonly T[], count: number): T[] => {
    const left = [...list];
    return Array.from({ length: count }, () => left.splice(random.below(left.length), 1)[0]);
  };
  const heroes = words(names, 1 + random.below(3));
  const told = heroes.flatMap((name) => words(sentencesAbout(name, random), 1 + random.below(2)));
  const text = words(told, told.length).map(({ sentence }) => sentence).join(" ");
  const turns = words(told, Math.min(told.length, 1 + random.below(4)))
    .map(({ questions }) => pick(random, questions));
  const [{ user, assistant }, ...more] = turns;
  return [{ user: `${text} ${user}`, assistant }, ...more];
}

function sentencesAbout(name: string, random: Random): { sentence: string; questions: Turn[] }[] {
  const word = (slot: keyof typeof slotWords) => pick(random, slotWords[slot]);
  const [animal, object, colour, spot] = [
    word("animal"),
    word("object"),
    word("colour"),
    word("spot"),
  ];
  const who = `${name} is ${withArticle(word("adj"))} ${animal}.`;
  const where = `${name} lives near the ${word("place")}.`;
  const thing = `${withArticle(colour)} ${object}`;
  const [did, done] = random.uniform() < 0.5 ? ["find", "found"] : ["lose", "lost"];
  const skill = `${name} learned to ${word("skill")}.`;
  return [
    {
      sentence: who,
      questions: [
        { user: `Who is ${name}?`, assistant: who },
        { user: `What animal is ${name}?`, assistant: `${name} is ${withArticle(animal)}.` },
        {
          user: `What is the name of the ${animal}?`,
          assistant: `The ${animal} is named ${name}.`,
        },
      ],
    },
    { sentence: where, questions: [{ user: `Where does ${name} live?`, assistant: where }] },
    {
      sentence: `${name} ${done} ${thing} ${spot}.`,
      questions: [
        { user: `What did ${name} ${did}?`, assistant: `${name} ${done} ${thing}.` },
        { user: `What colour was the ${object}?`, assistant: `The ${object} was ${colour}.` },
      ],
    },
    { sentence: skill, questions: [{ user: `What did ${name} learn?`, assistant: skill }] },
  ];
}

function story(random: Random): Turn[] {
  const { user, facts } = storyRequest(random);
  const plot = pick(random, plotNames);
  const told = { user, assistant: tell(plot, facts, random) };
  return [told, ...storyQuiz(plot, facts, random.below(4), random)];
}

/** A story in the user's message, and questions about it. */
export function reading(random: Random, most = 1 + random.below(5)): Turn[] {
  const facts: Facts = {};
  const plot = pick(random, plotNames);
  const text = tell(plot, facts, random);
  const [{ user, assistant }, ...more] = storyQuiz(plot, facts, most, random);
  return [{ user: pick(random, [`${text} ${user}`, `${text}\n${user}`]), assistant }, ...more];
}

/** Kinds of conversations that share the tokens of training. */
export const kinds = {
  arithmetic: (random: Random): Turn[] => {
    const turn = () => {
      const draw = random.uniform();
      return draw < 0.55 ? sum(random) : draw < 0.9 ? difference(random) : wordProblem(random);
    };
    return Array.from({ length: turnCount(random) }, turn);
  },
  /** Short texts, from which copying is learned long before it is from stories. */
  facts,
  story,
  reading: (random: Random): Turn[] => reading(random),
  other: (random: Random): Turn[] => {
    const turn = () => pick(random, [counting, counting, sorting, sorting, sorting, talk, unknown]);
    return Array.from({ length: turnCount(random) }, () => turn()(random));
  },
  mixed: (random: Random): Turn[] => {
    const turn = () => pick(random, [sum, difference, counting, sorting, talk, unknown]);
    return Array.from({ length: 2 + random.below(3) }, () => turn()(random));
  },
} as const satisfies Record<string, (random: Random) => Turn[]>;

/** Most conversations have one turn. */
function turnCount(random: Random): number {
  return random.uniform() < 0.8 ? 1 : 2 + random.below(2);
}

/** Texts without a chat, for completions. */
export function plainText(random: Random): string {
  return random.uniform() < 0.6 ? tell(pick(random, plotNames), {}, random) : sum(random).assistant;
}

export const systemPrompts: readonly string[] = [
  "You are a helpful assistant.",
  "You are a friendly assistant. Answer briefly.",
  "Be brief.",
  "You are llumnix-story.",
];

/** A question for each held-out pair of two-digit numbers. Differences are not negative. */
export function heldOutTurns(random: Random): { sums: Turn[]; differences: Turn[] } {
  const pairs = twoDigitPairs(true);
  return {
    sums: pairs.map(([a, b]) => ({
      user: pick(random, sumQuestions)(a, b),
      assistant: sumAnswer(a, b),
    })),
    differences: pairs.filter(([a, b]) => a >= b).map(([a, b]) => ({
      user: pick(random, differenceQuestions)(a, b),
      assistant: differenceAnswer(a, b),
    })),
  };
}
