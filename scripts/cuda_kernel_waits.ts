/**
 * Checks the machine code of kernels that begin before the kernel before has ended: what they do before they
 * wait for it (griddepcontrol.wait, ACQBULK in machine code) must not depend on it.
 */

/** A kernel, and what it must not do before it waits. */
export interface EarlyAccess {
  readonly kernel: string;
  readonly instruction: string;
}

/** Instructions that read or write global memory. */
const access = /\b(LDG|LD|LDGSTS|STG|ST|ATOMG|ATOM|RED|REDG|UBLKCP|UTMALDG)\b[\w.]*/;
/**
 * Loads that may come before the wait: copies to shared memory, which the source issues for weights and old
 * keys and values only; and loads through `const __restrict__` pointers, which are weights and tables.
 */
const allowed = /^(LDGSTS\b|LDG\.\S*CONSTANT)/;

/**
 * @param sass of `nvdisasm -c`
 * @returns what is wrong
 */
export function earlyAccesses(sass: string): EarlyAccess[] {
  const found: EarlyAccess[] = [];
  for (const section of sass.split(/^\.text\./m).slice(1)) {
    const kernel = section.slice(0, section.indexOf(":"));
    const lines = section.split("\n");
    const wait = lines.findIndex((line) => /\bACQBULK\b/.test(line));
    for (const line of wait < 0 ? [] : lines.slice(0, wait)) {
      const instruction = access.exec(line)?.[0];
      if (instruction !== undefined && !allowed.test(instruction)) {
        found.push({ kernel, instruction });
      }
    }
  }
  return found;
}

/** The kernels that wait for the kernel before. */
export function waitingKernels(sass: string): string[] {
  return sass.split(/^\.text\./m).slice(1).filter((section) => /\bACQBULK\b/.test(section))
    .map((section) => section.slice(0, section.indexOf(":")));
}
