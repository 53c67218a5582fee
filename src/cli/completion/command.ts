import type { Command } from "../command.ts";
export const completion: Command = { run: () => Promise.resolve(0) };
