/** A headless Chromium for tests of pages: Debian's, or the one that LLUMNIX_CHROMIUM names. */
import { type Browser, chromium, type Page } from "playwright-core";

/** Path of the browser; null: there is none on this machine. */
export const chromiumPath = findChromium();
/** Follows the names of tests that are ignored without a browser. */
export const chromiumNeeded = chromiumPath === null
  ? " (ignored: no chromium on PATH, and LLUMNIX_CHROMIUM is not set)"
  : "";

/** A step of a page that takes longer hangs. */
const STEP_TIMEOUT_MS = 40_000;

export interface OpenPage extends AsyncDisposable {
  readonly page: Page;
  /** What the page complained about: uncaught errors, and errors and warnings of the console. */
  readonly complaints: string[];
}

export async function launchChromium(): Promise<Browser> {
  return await chromium.launch({
    executablePath: chromiumPath!,
    // Test machines run as root in containers, where Chromium's sandbox does not start.
    args: ["--no-sandbox", "--disable-gpu"],
    timeout: STEP_TIMEOUT_MS,
  });
}

/** Opens a page in a context of its own. */
export async function openPage(
  browser: Browser,
  url: string,
  size: { readonly width: number; readonly height: number },
): Promise<OpenPage> {
  const context = await browser.newContext({ viewport: size });
  context.setDefaultTimeout(STEP_TIMEOUT_MS);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  await page.goto(url);
  return { page, complaints, [Symbol.asyncDispose]: () => context.close() };
}

function findChromium(): string | null {
  const named = Deno.env.get("LLUMNIX_CHROMIUM");
  if (named !== undefined && named !== "") return named;
  for (const directory of (Deno.env.get("PATH") ?? "").split(":")) {
    const path = `${directory}/chromium`;
    try {
      if (Deno.statSync(path).isFile) return path;
    } catch {
      // not here
    }
  }
  return null;
}
