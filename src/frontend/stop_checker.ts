/** One state of the automaton: a prefix of some stop string, which the text so far ends with. */
interface State {
  readonly next: Map<number, State>;
  /** Length of the prefix. */
  readonly depth: number;
  /** The longest proper suffix that is a prefix too. */
  fallback: State | null;
  /** The longest stop string that the text ends with in this state. */
  match: string | null;
}

/**
 * Stop strings, compiled once for a request (Aho and Corasick, "Efficient string matching", 1975), so
 * that the cost per character does not depend on their number.
 */
export class StopStrings {
  readonly root: State = { next: new Map(), depth: 0, fallback: null, match: null };

  /** @param strings not empty each */
  constructor(strings: readonly string[]) {
    for (const string of strings) this.#add(string.toWellFormed());
    const queue = [this.root];
    for (const state of queue) {
      for (const [unit, child] of state.next) {
        child.fallback = state.fallback === null ? this.root : step(state.fallback, unit);
        child.match ??= child.fallback.match;
        queue.push(child);
      }
    }
  }

  #add(string: string): void {
    let state = this.root;
    for (let i = 0; i < string.length; i++) {
      const unit = string.charCodeAt(i);
      let child = state.next.get(unit);
      if (child === undefined) {
        child = { next: new Map(), depth: i + 1, fallback: null, match: null };
        state.next.set(unit, child);
      }
      state = child;
    }
    state.match = string;
  }
}

function step(from: State, unit: number): State {
  for (let state: State | null = from; state !== null; state = state.fallback) {
    const next = state.next.get(unit);
    if (next !== undefined) return next;
    if (state.fallback === null) return state;
  }
  return from;
}

/**
 * Looks for stop strings in text that arrives in pieces and lets through what cannot be part of one.
 * The match that is complete first ends the text, so the result does not depend on how the text was
 * cut; of two that end at the same character the longer one counts.
 */
export class StopChecker {
  #state: State;
  /** Text that may turn out to be the beginning of a stop string. */
  #held = "";
  #match: string | null = null;

  /** @param includeMatch whether the stop string stays at the end of the text */
  constructor(strings: StopStrings, private readonly includeMatch: boolean) {
    this.#state = strings.root;
  }

  /** The stop string that was found. Nothing may be pushed after it. */
  get match(): string | null {
    return this.#match;
  }

  /**
   * Takes new text and returns the text that may be shown.
   * @param mayStop false while a minimum of output is not reached: what ends in `text` is no match
   */
  push(text: string, mayStop: boolean): string {
    let state = this.#state;
    for (let i = 0; i < text.length; i++) {
      state = step(state, text.charCodeAt(i));
      if (mayStop && state.match !== null) return this.#cut(text.slice(0, i + 1), state.match);
    }
    this.#state = state;
    // With the stop string included nothing shown is ever taken back.
    if (this.includeMatch) return text;
    const all = this.#held + text;
    const shown = all.length - state.depth;
    this.#held = all.slice(shown);
    return all.slice(0, shown);
  }

  /** Text that was held back, when the output ended otherwise. */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  #cut(textToEnd: string, match: string): string {
    this.#match = match;
    const all = this.#held + textToEnd;
    this.#held = "";
    return this.includeMatch ? all : all.slice(0, all.length - match.length);
  }
}
