/**
 * Takes the picture of the page that README shows: runs `llumnix demo`, opens the page of its service with
 * migration in Chromium, and waits until requests fly between instances. In the picture, bars and marks stand at
 * the values beside them: the page moves them there, and would be caught half-way. Only flights are caught.
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
/** Wait for each number of flights. */
const PATIENCE_MS = 12_000;
/** Runs in the page. */
const NO_TRANSITIONS = `{
  const [sheet] = [...document.styleSheets].filter(({ href }) => href.endsWith("/style.css"));
  sheet.insertRule("*, ::before { transition: none !important }", sheet.cssRules.length);
}`;
/** Runs in the page before its own scripts: once `isStopped` is set, the feed says nothing more. */
const STOPPABLE_FEED = `{
  const { prototype } = ReadableStreamDefaultReader, { read } = prototype;
  const never = new Promise(() => {});
  prototype.read = async function () {
    const result = await read.call(this);
    return globalThis.isStopped ? never : result;
  };
}`;
/** A flight that has lasted so long is half-way, and its trail can be seen. */
const HALF_WAY_MS = [400, 900] as const;

/**
 * Runs in the page: true once so many requests are half-way between two instances, and all instances serve. It
 * then freezes the page, so that the screenshot shows this moment.
 */
function stopFlights(flights: number): string {
  return `new Promise((resolve) => {
    const untilMs = performance.now() + ${PATIENCE_MS};
    const isHalfWay = (path) => path.getAnimations().some(({ currentTime }) =>
      currentTime > ${HALF_WAY_MS[0]} && currentTime < ${HALF_WAY_MS[1]});
    const look = () => {
      const flying = [...document.querySelectorAll("#flights path")].filter(isHalfWay);
      const running = document.querySelectorAll(".mark[data-running]");
      const others = document.querySelectorAll(".card:not([data-state=serving])");
      if (flying.length >= ${flights} && running.length >= ${3 * flights} && others.length === 0) {
        globalThis.isStopped = true;
        document.getAnimations().forEach((animation) => animation.pause());
        resolve(true);
      } else if (performance.now() > untilMs) resolve(false);
      else requestAnimationFrame(look);
    };
    look();
  })`;
}

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
  await page.addInitScript(STOPPABLE_FEED);
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
  // The plots show the first round then.
  await readUntil(/^Round 2/m);
  await page.goto(url);
  await page.evaluate(NO_TRANSITIONS);
  for (const flights of FLIGHTS) {
    if (await page.evaluate(stopFlights(flights))) break;
  }
  await page.screenshot({ path: values.out });
} finally {
  await browser.close();
  demo.kill("SIGINT");
  await output.cancel();
  await demo.status;
}
