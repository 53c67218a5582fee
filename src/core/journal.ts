/** The journal of systemd, if stderr goes there (systemd.exec(5), JOURNAL_STREAM; sd-daemon(3)). */

/** syslog(3). */
const priorities = { debug: 7, info: 6, warn: 4, error: 3 } as const;

export type JournalLevel = keyof typeof priorities;

/** What to write before a line for the journal, which takes it as the line's priority; else nothing. */
export function journalPrefix(level: JournalLevel): string {
  return writesToJournal() ? `<${priorities[level]}>` : "";
}

let isJournal: boolean | undefined;

/** Whether the journal reads this process's stderr. Instances have it from the process that starts them. */
export function writesToJournal(): boolean {
  return isJournal ??= isStream(Deno.env.get("JOURNAL_STREAM"), "/proc/self/fd/2");
}

/**
 * Whether a file is the stream that the variable names. The variable alone does not say so: it is
 * inherited by programs whose stderr goes elsewhere.
 * @param stream `DEVICE:INODE`, or undefined
 */
export function isStream(stream: string | undefined, path: string): boolean {
  if (!stream) return false;
  try {
    const { dev, ino } = Deno.statSync(path);
    return stream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}
