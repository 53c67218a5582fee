import type { Step } from "./examine.ts";

/** A step that takes longer is announced on stderr. */
const SILENT_MS = 1_000;

/** Tells the user what takes long. */
export const announced: Step = async (name, run) => {
  const timer = setTimeout(() => console.error(`llumnix doctor: ${name} ...`), SILENT_MS);
  try {
    return await run();
  } finally {
    clearTimeout(timer);
  }
};
