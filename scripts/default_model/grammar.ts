/**
 * A grammar of short stories: one list of sentences a plot, with slots. The same sentences generate
 * stories and parse them, so a story that a model tells is grammatical if, and only if, it parses.
 */
import type { Random } from "../../src/core/random.ts";

const boys = ["Tom", "Ben", "Max", "Sam", "Leo", "Finn", "Oscar", "Hugo"];
const girls = ["Lily", "Mia", "Anna", "Emma", "Rosa", "Nora", "Ella", "Ida"];

const places = [
  ...["forest", "village", "river", "lake", "mill", "valley", "sea", "garden", "bridge", "hill"],
];

/**
 * Words of each slot. A slot has one word in a story. No two slots of one kind share words: a model that
 * tells a story then sees from a name alone whether it is the hero's or the friend's.
 */
export const slotWords = {
  name: [...boys.slice(0, 4), ...girls.slice(0, 4)],
  name2: [...boys.slice(4), ...girls.slice(4)],
  animal: [
    ...["fox", "rabbit", "bear", "mouse", "cat", "dog", "owl", "duck", "frog", "hedgehog"],
    ...["squirrel", "horse"],
  ],
  animal2: ["pig", "elephant", "otter", "turtle"],
  adj: [
    ...["small", "brave", "kind", "clever", "old", "young", "gentle", "curious", "quick", "lively"],
    ...["shy", "eager"],
  ],
  place: places,
  house: ["little house", "warm nest", "red hut", "quiet cave"],
  day: ["day", "morning", "evening", "summer day", "winter day"],
  colour: ["red", "blue", "green", "yellow", "golden", "white", "orange", "silver"],
  object: [
    ...["ball", "kite", "boat", "lantern", "apple", "drum", "key", "book", "hat", "bell"],
    ...["umbrella", "map"],
  ],
  spot: ["under a tree", "by the river", "on the hill", "behind a rock"],
  spot2: ["in the tall grass", "near the bridge", "on the path", "in an empty nest"],
  skill: ["sing", "dance", "read", "paint", "climb", "whistle", "bake bread"],
  glad: ["happy", "proud", "glad", "cheerful"],
  /** How they feel in the evening, which need not be how one of them felt before. */
  content: ["happy", "proud", "glad", "cheerful"],
  sad: ["sad", "worried", "upset"],
} as const satisfies Record<string, readonly string[]>;

export type Slot = keyof typeof slotWords;
/** The words that a story has in its slots. */
export type Facts = Partial<Record<Slot, string>>;

/** Words that follow from the name: `he`, `his` and `him` of `name`; `he2` and so on of `name2`. */
const pronouns: Record<string, readonly [male: string, female: string]> = {
  he: ["he", "she"],
  his: ["his", "her"],
  him: ["him", "her"],
};

/** Each sentence of a plot is one of its variants. */
type Plot = readonly (readonly string[])[];

const opening: Plot = [
  [
    "Once upon a time there was {a adj} {animal} named {name}.",
    "There once was {a adj} {animal} called {name}.",
  ],
  [
    "{He} lived in a {house} near the {place}.",
    "{name} lived near the {place} with {his} family.",
    "{His} home was a {house} near the {place}.",
  ],
];

const ending: readonly string[] = [
  "From that day on {name} and {name2} were best friends.",
  "In the evening they went home together, tired and {content}.",
  "{name} never forgot what {name2} had done.",
  "And if they are not asleep, they are still laughing today.",
];

/** Plots by name. */
export const plots = {
  found: [
    ...opening,
    [
      "One {day} {name} found {a colour} {object} {spot}.",
      "One {day} {he} found {a colour} {object} {spot}.",
    ],
    [
      '"What a lovely {object}!" said {name}.',
      "{He} had never seen such {a object} before.",
      "{He} was very {glad} and wanted to show it to somebody.",
    ],
    [
      "Then {a animal2} named {name2} came along.",
      "On the way home {he} met {name2} the {animal2}.",
    ],
    [
      '"May I see your {object}?" asked {name2}.',
      '"May I play with your {object}?" asked {name2}.',
    ],
    [
      '"Of course," said {name}, "let us share it."',
      "{name} smiled and gave the {object} to {name2}.",
    ],
    ["They played together until the sun went down.", "They laughed and played all day long."],
    ending,
  ],
  lost: [
    ...opening,
    [
      "One {day} {name} lost {his} {colour} {object} {spot}.",
      "{name} had {a colour} {object}, but one {day} {he} lost it {spot}.",
    ],
    [
      "{He} looked everywhere, but the {object} was gone.",
      "{name} was {sad} and began to cry.",
    ],
    [
      "{name2} the {animal2} heard this and wanted to help.",
      '"Do not worry, I will help you," said {name2} the {animal2}.',
    ],
    [
      "Together they looked here and there, and {name2} found the {object} {spot2}.",
      "After a long time {name2} found it {spot2}.",
    ],
    [
      '"Thank you, {name2}!" said {name}.',
      "{name} was so {glad} that {he} gave {name2} a big hug.",
    ],
    ending,
  ],
  storm: [
    ...opening,
    ["One night a big storm came.", "One {day} it began to rain and rain."],
    [
      "The wind broke the door of {name2} the {animal2}.",
      "The water came into the house of {name2} the {animal2}.",
    ],
    ["{name2} was cold and {sad}.", "{He2} had no dry place to sleep."],
    [
      '"Come to my house," said {name}.',
      "{name} took {a colour} lantern and went out to help {him2}.",
    ],
    [
      "They drank hot tea and listened to the wind.",
      "They sat by the fire until the storm was over.",
    ],
    ["The next day they mended everything.", "When the sun came out, {name2} was {glad} again."],
    ending,
  ],
  skill: [
    ...opening,
    ["{name} wanted to learn to {skill}.", "More than anything {he} wanted to {skill}."],
    ["At first it was very hard.", "{He} tried every day, but it did not work."],
    [
      "{name2} the {animal2} was good at it and showed {him} how.",
      '"I will teach you," said {name2} the {animal2}.',
    ],
    ["They practised every {day}.", "Again and again they tried, and nobody gave up."],
    ["At last {name} could {skill}.", "After a week {name} could {skill} very well."],
    ["{He} was very {glad}.", '"Look at me!" said {name}.'],
    ending,
  ],
} as const satisfies Record<string, Plot>;

export type PlotName = keyof typeof plots;
export const plotNames = Object.keys(plots) as PlotName[];

/** Tells a story of a plot. @param facts words that it must have; missing ones are added to it. */
export function tell(plot: PlotName, facts: Facts, random: Random): string {
  return plots[plot].map((variants) => {
    const variant = variants[random.below(variants.length)];
    return variant.replaceAll(/\{([^}]+)\}/g, (_, slot) => fill(slot, facts, random));
  }).join(" ");
}

function fill(slot: string, facts: Facts, random: Random): string {
  if (slot.startsWith("a ")) return withArticle(wordOf(slot.slice(2) as Slot, facts, random));
  if (slot in slotWords) return wordOf(slot as Slot, facts, random);
  wordOf(nameOf(slot), facts, random);
  return pronoun(slot, facts);
}

function wordOf(slot: Slot, facts: Facts, random: Random): string {
  if (facts[slot] === undefined) {
    const words = slotWords[slot];
    facts[slot] = words[random.below(words.length)];
  }
  return facts[slot];
}

/** The slot that a pronoun such as `He2` stands for. */
function nameOf(pronounSlot: string): "name" | "name2" {
  return pronounSlot.endsWith("2") ? "name2" : "name";
}

function pronoun(slot: string, facts: Facts): string {
  const name = facts[nameOf(slot)]!;
  const base = slot.replace("2", "");
  const [male, female] = pronouns[base.toLowerCase()];
  const word = boys.includes(name) ? male : female;
  return base[0] === "H" ? word[0].toUpperCase() + word.slice(1) : word;
}

/** The word behind `a`, or `an` before a vowel. */
export function withArticle(word: string): string {
  return `${/^[aeiou]/.test(word) ? "an" : "a"} ${word}`;
}

/** A story that was understood. */
export interface Parse {
  readonly plot: PlotName;
  readonly facts: Readonly<Facts>;
}

/** Parses a whole story; null if no plot of the grammar makes it. */
export function parseStory(text: string): Parse | null {
  for (const plot of plotNames) {
    const facts = parsePlot(plots[plot], 0, text.trim(), {});
    if (facts) return { plot, facts };
  }
  return null;
}

/** Matches the sentences from `index` on with all of `text`; returns the facts, or null. */
function parsePlot(plot: Plot, index: number, text: string, facts: Facts): Facts | null {
  if (index === plot.length) return text === "" ? facts : null;
  for (const variant of plot[index]) {
    const match = parseSentence(variant, text, facts);
    if (!match) continue;
    const isLast = index === plot.length - 1;
    if (!isLast && !match.rest.startsWith(" ")) continue;
    const found = parsePlot(plot, index + 1, match.rest.slice(isLast ? 0 : 1), match.facts);
    if (found) return found;
  }
  return null;
}

interface Match {
  readonly facts: Facts;
  /** Text after the sentence. */
  readonly rest: string;
}

function parseSentence(variant: string, text: string, facts: Facts): Match | null {
  const brace = variant.indexOf("{");
  const literal = brace < 0 ? variant : variant.slice(0, brace);
  if (!text.startsWith(literal)) return null;
  const rest = text.slice(literal.length);
  if (brace < 0) return { facts, rest };
  const end = variant.indexOf("}");
  const slot = variant.slice(brace + 1, end);
  for (const { word, facts: bound } of readings(slot, facts)) {
    if (!rest.startsWith(word)) continue;
    const match = parseSentence(variant.slice(end + 1), rest.slice(word.length), bound);
    if (match) return match;
  }
  return null;
}

/** The texts that a slot can have, each with the facts if it has it. */
function readings(slot: string, facts: Facts): { word: string; facts: Facts }[] {
  const isPronoun = !slot.startsWith("a ") && !(slot in slotWords);
  const key = isPronoun ? nameOf(slot) : slot.replace(/^a /, "") as Slot;
  const bound = facts[key];
  const words = bound === undefined ? slotWords[key] : [bound];
  return words.map((word) => {
    const known = { ...facts, [key]: word };
    const text = isPronoun
      ? pronoun(slot, known)
      : slot.startsWith("a ")
      ? withArticle(word)
      : word;
    return { word: text, facts: known };
  });
}
