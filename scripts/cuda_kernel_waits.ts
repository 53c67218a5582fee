/**
 * Checks the machine code of kernels that begin before the kernel before has ended. On every way through a
 * kernel, `griddepcontrol.wait` (ACQBULK in machine code) comes before everything that depends on that kernel,
 * before the next kernel may begin (PREEXIT), and before the end: a block that ends without a wait could let
 * the kernel after the next one begin too early.
 */

/** A kernel, and what it must not do before it waits. */
export interface EarlyAccess {
  readonly kernel: string;
  readonly instruction: string;
}

/** Instructions that read or write global memory. */
const access = /^(LDG|LD|LDGSTS|STG|ST|ATOMG|ATOM|RED|REDG|UBLKCP|UTMALDG)\b[\w.]*/;
/**
 * Loads that may come before the wait: copies to shared memory, which the source issues for weights and old
 * keys and values only; and loads through `const __restrict__` pointers, which are weights and tables.
 */
const allowed = /^(LDGSTS\b|LDG\.\S*CONSTANT)/;

interface Instruction {
  /** Without its predicate: `BRA.DIV UR4, ...`. */
  readonly text: string;
  /** Whether it may be skipped. */
  readonly isConditional: boolean;
}

/** The code of one kernel. */
class Code {
  readonly kernel: string;
  readonly instructions: readonly Instruction[];
  /** The instruction that follows each label. */
  readonly #labels: ReadonlyMap<string, number>;

  /** @param section of `nvdisasm -c`, from the name of the kernel on */
  constructor(section: string) {
    this.kernel = section.slice(0, section.indexOf(":"));
    const instructions: Instruction[] = [], labels = new Map<string, number>();
    for (const line of section.split("\n").slice(1)) {
      const label = /^(\S+):$/.exec(line.trimEnd())?.[1];
      if (label !== undefined) labels.set(label, instructions.length);
      const [, predicate, text] = /^\s*\/\*[0-9a-f]+\*\/\s+(@!?U?P\w+\s+)?(.*\S)/.exec(line) ?? [];
      if (text !== undefined) {
        instructions.push({ text, isConditional: predicate !== undefined });
      }
    }
    this.instructions = instructions;
    this.#labels = labels;
  }

  get waits(): boolean {
    return this.instructions.some(({ text }) => /^ACQBULK\b/.test(text));
  }

  /** Instructions that can be reached without a wait. */
  early(): Instruction[] {
    const reached = new Set<number>(), ways = [0];
    for (let at = ways.pop(); at !== undefined; at = ways.pop()) {
      if (reached.has(at)) continue;
      reached.add(at);
      if (!/^ACQBULK\b/.test(this.instructions[at].text)) ways.push(...this.#after(at));
    }
    return [...reached].sort((a, b) => a - b).map((at) => this.instructions[at]);
  }

  /** What can be executed next. @throws {Error} the instruction jumps to where no label tells */
  #after(at: number): number[] {
    const { text, isConditional } = this.instructions[at];
    const next = at + 1 < this.instructions.length ? [at + 1] : [];
    const target = /^(BRA|CALL|JMP|WARPSYNC\.COLLECTIVE)\b/.test(text)
      ? /`\((\S+)\)/.exec(text)?.[1]
      : undefined;
    if (/^(BRX|JMX)\b/.test(text) || (/^(BRA|CALL|JMP)\b/.test(text) && target === undefined)) {
      throw new Error(`${this.kernel}: a jump that this check cannot follow: ${text}`);
    }
    if (target !== undefined) {
      const to = this.#labels.get(target);
      if (to === undefined) throw new Error(`${this.kernel}: no label ${target}`);
      // `BRA P1, ...` and `BRA.DIV UR4, ...` have their condition among the operands.
      const isAlways = /^(BRA|JMP)(\.U)? `/.test(text) && !isConditional;
      return isAlways ? [to] : [to, ...next];
    }
    // A function goes back behind its call, which is reached from there.
    const ends = /^(EXIT|RET|KILL)\b/.test(text) && !isConditional;
    return ends ? [] : next;
  }
}

function codeOf(sass: string): Code[] {
  return sass.split(/^\.text\./m).slice(1).map((section) => new Code(section));
}

/**
 * @param sass of `nvdisasm -c`
 * @returns what is wrong: the first words of instructions
 * @throws {Error} the code jumps in a way that cannot be followed
 */
export function earlyAccesses(sass: string): EarlyAccess[] {
  return codeOf(sass).filter(({ waits }) => waits).flatMap((code) =>
    code.early().flatMap(({ text }): EarlyAccess[] => {
      const instruction = access.exec(text)?.[0] ?? /^(EXIT|PREEXIT)\b/.exec(text)?.[0];
      return instruction === undefined || allowed.test(instruction)
        ? []
        : [{ kernel: code.kernel, instruction }];
    })
  );
}

/** The kernels that wait for the kernel before. */
export function waitingKernels(sass: string): string[] {
  return codeOf(sass).filter(({ waits }) => waits).map(({ kernel }) => kernel);
}
