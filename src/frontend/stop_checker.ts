/** One stop string and how much of it the text so far ends with. */
interface Pattern {
  readonly text: string;
  /** At `n`: the longest proper prefix of the first `n + 1` units that they end with. */
  readonly fallbacks: Uint16Array;
}

/** Longest stop string, in UTF-16 units: what the tables of {@linkcode StopStrings} can express. */
export const MAX_STOP_LENGTH = 1024;

/**
 * The stop strings of a request, prepared for matching (Knuth, Morris and Pratt, "Fast pattern matching in
 * strings", 1977). Preparing takes two bytes a unit; matching takes constant time a unit and string.
 */
export class StopStrings {
  static readonly #compiled = new WeakMap<readonly string[], StopStrings>();
  readonly patterns: readonly Pattern[];

  /** @param strings each of 1 to {@linkcode MAX_STOP_LENGTH} units, and well-formed */
  constructor(strings: readonly string[]) {
    this.patterns = strings.map((text) => ({ text, fallbacks: fallbacksOf(text) }));
  }

  /** Prepares the strings once for all requests that share the array, such as the prompts of a batch. */
  static of(strings: readonly string[]): StopStrings {
    let compiled = StopStrings.#compiled.get(strings);
    if (compiled === undefined) {
      compiled = new StopStrings(strings);
      StopStrings.#compiled.set(strings, compiled);
    }
    return compiled;
  }
}

function fallbacksOf(text: string): Uint16Array {
  const fallbacks = new Uint16Array(text.length);
  for (let i = 1, length = 0; i < text.length; i++) {
    length = advance(text, fallbacks, length, text.charCodeAt(i));
    fallbacks[i] = length;
  }
  return fallbacks;
}

/** The matched length after one more unit, from `length` units that matched before it. */
function advance(text: string, fallbacks: Uint16Array, length: number, unit: number): number {
  while (length > 0 && text.charCodeAt(length) !== unit) length = fallbacks[length - 1];
  return text.charCodeAt(length) === unit ? length + 1 : 0;
}

/**
 * Looks for stop strings in text that arrives in pieces. Returns the text that may be shown, and holds back
 * an end that may turn out to begin a stop string.
 *
 * The match that is complete first ends the text, so the result does not depend on how the text was cut.
 * If two matches end at the same unit, the longer one counts.
 */
export class StopChecker {
  readonly #patterns: readonly Pattern[];
  /** Units at the end of the text that match the beginning of each pattern. */
  readonly #lengths: Uint16Array;
  /** Text that may turn out to be the beginning of a stop string. */
  #held = "";
  #match: string | null = null;

  /** @param includeMatch whether the stop string stays at the end of the text */
  constructor(strings: StopStrings, private readonly includeMatch: boolean) {
    this.#patterns = strings.patterns;
    this.#lengths = new Uint16Array(strings.patterns.length);
  }

  /** The stop string that was found. Nothing may be pushed after it. */
  get match(): string | null {
    return this.#match;
  }

  /**
   * Takes new text and returns the text that may be shown.
   * @param mayStop false while a minimum of output is not reached: a stop string that ends in `text` is
   * then no match
   */
  push(text: string, mayStop: boolean): string {
    for (let i = 0; i < text.length; i++) {
      const match = this.#advance(text.charCodeAt(i));
      if (mayStop && match !== null) return this.#cut(text.slice(0, i + 1), match);
    }
    // With the stop string included, no shown text is ever taken back.
    if (this.includeMatch) return text;
    const all = this.#held + text;
    const shown = all.length - Math.max(0, ...this.#lengths);
    this.#held = all.slice(shown);
    return all.slice(0, shown);
  }

  /** Text that was held back, when the output ended without a match. */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** Takes one unit; returns the longest stop string that ends with it. */
  #advance(unit: number): string | null {
    let match: string | null = null;
    for (let i = 0; i < this.#patterns.length; i++) {
      const { text, fallbacks } = this.#patterns[i];
      const length = this.#lengths[i] = advance(text, fallbacks, this.#lengths[i], unit);
      if (length === text.length && length > (match?.length ?? 0)) match = text;
    }
    return match;
  }

  #cut(textToEnd: string, match: string): string {
    this.#match = match;
    const all = this.#held + textToEnd;
    this.#held = "";
    return this.includeMatch ? all : all.slice(0, all.length - match.length);
  }
}
