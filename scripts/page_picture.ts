/**
 * Takes the picture of the page that README shows: runs `llumnix demo`, opens the page of its service with
 * migration in Chromium, and waits until requests fly between instances.
 *
 *     deno run -A scripts/page_picture.ts [--out FILE] [--width 1280] [--height 1000] [--scheme light|dark]
 */
import { parseArgs } from "node:util";
import { chromiumPath, launchChromium } from "../test/e2e/browser.ts";
import { programCommand } from "./bench/service.ts";

/**
 * The picture is taken when this many requests move at once. If that does not happen in time, the next number
 * is enough.
 */
const FLIGHTS = [8, 6, 4, 3, 2];
/** So that the plots have lines. */
const PLOTTED_MS = 12_000;
/** Wait for each number of flights. */
const PATIENCE_MS = 12_000;
/** From the start of a flight until its trail is drawn. */
const FLIGHT_MS = 150;

const text = { type: "string" } as const;
const { values } = parseArgs({
  options: {
    out: { ...text, default: new URL("../src/page/page.png", import.meta.url).pathname },
    width: { ...text, default: "1280" },
    height: { ...text, default: "1000" },
    scheme: { ...text, default: "light" },
  },
});
if (chromiumPath === null) {
  console.error("page_picture: no chromium on PATH, and LLUMNIX_CHROMIUM is not set");
  Deno.exit(2);
}

const [program, ...words] = await programCommand();
const demo = new Deno.Command(program, { args: [...words, "demo"], stdout: "piped" }).spawn();
const output = demo.stdout.pipeThrough(new TextDecoderStream()).getReader();
const browser = await launchChromium();
try {
  const context = await browser.newContext({
    viewport: { width: Number(values.width), height: Number(values.height) },
    colorScheme: values.scheme === "dark" ? "dark" : "light",
  });
  const page = await context.newPage();
  let said = "";
  const readUntil = async (pattern: RegExp) => {
    for (;;) {
      const found = pattern.exec(said);
      if (found !== null) return found;
      const { done, value } = await output.read();
      if (done) throw new Error(`the demo ended before it said ${pattern}:\n${said}`);
      said += value;
    }
  };
  const [, url] = await readUntil(/^The page, with migration: +(\S+)$/m);
  await readUntil(/^Round 1/m);
  await page.goto(url);
  await page.waitForTimeout(PLOTTED_MS);
  for (const flights of FLIGHTS) {
    const isReached = await page.waitForFunction(
      `document.querySelectorAll("#flights path").length >= ${flights} &&
        document.querySelectorAll(".mark[data-running]").length >= ${3 * flights} &&
        document.querySelectorAll(".card:not([data-state=serving])").length === 0`,
      null,
      { timeout: PATIENCE_MS, polling: 50 },
    ).then(() => true, () => false);
    if (isReached) break;
  }
  await page.waitForTimeout(FLIGHT_MS);
  await page.screenshot({ path: values.out });
} finally {
  await browser.close();
  demo.kill("SIGINT");
  await output.cancel();
  await demo.status;
}
