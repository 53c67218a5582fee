/** The page at `/` in a browser, before a simulated cluster. */
import assert from "node:assert/strict";
import type { Browser, Page } from "playwright-core";
import { chromiumNeeded, chromiumPath, launchChromium, openPage } from "./browser.ts";
import { startServer } from "./harness.ts";

const KEY = "page-key";
const TOKEN = "page-admin-token";
const MODEL = "<b>llama</b>&amp;7b";
const desktop = { width: 1280, height: 900 };
const phone = { width: 320, height: 640 };

const args = [
  ...["--device", "sim", "--gpu-type", "a10", "--model", "llama-7b", "--served-model-name", MODEL],
  ...["--initial-instances", "2", "--enable-migration", "--api-key", KEY],
  // So slow that the request that the test moves about does not end meanwhile.
  ...["--speedup", "0.2"],
];

/** Runs in the page: elements that reach beyond the window. A plot is drawn to its right edge. */
const TOO_WIDE = `[...document.querySelectorAll("main *, header *")].filter((element) => {
  const { right, width } = element.getBoundingClientRect();
  return width > 0 && right > innerWidth + 0.5 && !element.closest(".plot");
}).map((element) => element.tagName + " " + element.id + " " + element.className)`;

const noNumbers = {
  ...{ ttftMs: null, tpotMs: null, outputTokensPerSecond: 0, migrations: 0 },
  ...{ worstDowntimeMs: null, preemptions: 0, resumed: 0 },
};
/** What a feed tells of the cluster when nothing happens. */
const quiet = {
  ...{ nowMs: 1, instances: [], hosts: [], leadership: null, isManagerGone: false },
  ...{ unlisted: 0, events: [], points: [], summary: noNumbers },
};
const instanceOf = (id: string, more: object) => ({
  ...{ id, type: "both", state: "serving", totalBlocks: 9, usedBlocks: 1, load: 0 },
  ...{ running: 1, waiting: 0, preempted: 0, host: null, ...more },
});
const stateOf = (more: object) =>
  feedEvent("state", { ...quiet, version: "1", model: "m", hasAdmin: false, ...more });

function feedEvent(name: string, record: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(record)}\n\n`;
}

const request = {
  ...{ key: 1, id: "r", isRunning: true, isHigh: false },
  ...{ promptTokens: 1, outputTokens: 1, maxTokens: 9, startedMs: 0 },
};
const tickOf = (more: object) =>
  feedEvent("tick", { ...quiet, added: [], changed: [], ended: [], moves: [], ...more });

/** A feed that tells of a request before it tells of the instance that has it. */
const LATE_INSTANCES = stateOf({ requests: [{ ...request, instance: "late" }] }) +
  tickOf({ instances: [instanceOf("late", {})] });

/** A feed of a request that moves again before it has arrived. */
const MOVING_TWICE = movingTwice();

function movingTwice(): string {
  const instances = ["a", "b", "c"].map((id) => instanceOf(id, {}));
  const movedTo = (id: string) => tickOf({ instances, changed: [[1, id, 1, 2]] });
  return stateOf({ instances, requests: [{ ...request, instance: "a" }] }) + movedTo("b") +
    movedTo("c");
}

/** Runs in the page: how far from the place of the mark the last trail ends, in pixels; null without a trail. */
const MISS_OF_LAST_TRAIL = `(() => {
  const mark = document.querySelector("button.mark");
  const trail = [...document.querySelectorAll("#flights path")].at(-1);
  if (mark === null || trail === undefined) return null;
  for (const animation of mark.getAnimations()) animation.finish();
  const { left, top, width, height } = mark.getBoundingClientRect();
  const { x, y } = trail.getPointAtLength(trail.getTotalLength());
  return String(Math.hypot(x - left - width / 2, y - top - height / 2));
})()`;

/** A feed of sixteen instances that are full, and have as much to tell as they can. */
const FULL_INSTANCES = stateOf({
  requests: [],
  instances: Array.from({ length: 16 }, (_, i) =>
    instanceOf(`instance-mx349aga-${i}`, {
      ...{ state: "unreachable", totalBlocks: 66_848, usedBlocks: 66_321, load: -1234.5 },
      ...{ running: 256, waiting: 1024, preempted: 128 },
    })),
});

/** Runs in the page: texts that reach out of their cards. */
const OUT_OF_CARDS = `[...document.querySelectorAll(".card")].flatMap((card) =>
  [...card.querySelectorAll("*")].filter((element) => {
    const { right, width } = element.getBoundingClientRect();
    return width > 0 && right > card.getBoundingClientRect().right;
  }).map((element) => element.textContent))`;

/** Keeps one request running, of as many tokens as the model takes, until it is told to stop. */
async function keepBusy(url: string, signal: AbortSignal): Promise<void> {
  const body = { model: MODEL, prompt: "hello", max_tokens: 1900, ignore_eos: true, stream: true };
  while (!signal.aborted) {
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      signal,
      headers: { "content-type": "application/json", authorization: `Bearer ${KEY}` },
      body: JSON.stringify(body),
    });
    assert.equal(response.status, 200, await response.text());
  }
}

/** Gives the page a key or a token by its dialog. */
async function answerDialog(page: Page, value: string): Promise<void> {
  await page.locator("#token-text").fill(value);
  await page.locator("#token-form button[type=submit]").click();
}

async function unlock(page: Page): Promise<void> {
  await answerDialog(page, KEY);
  await page.locator("#link[data-state=live]").waitFor();
}

const card = (page: Page, name: string) =>
  page.locator(".card", { has: page.locator(`h3:text-is("${name}")`) });

/** The instance whose card has the one mark. */
async function placeOfMark(page: Page): Promise<string> {
  await page.locator(".card button.mark").first().waitFor();
  return await page.locator(".card", { has: page.locator("button.mark") }).first()
    .locator("h3").innerText();
}

const other = (instance: string) => instance === "instance-0" ? "instance-1" : "instance-0";

Deno.test({
  name: `the page shows and operates a cluster${chromiumNeeded}`,
  ignore: chromiumPath === null,
  // playwright-core keeps its pipe to the browser's process for a moment after the browser has closed.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async (t) => {
    await using server = await startServer(args, { env: { LLUMNIX_ADMIN_TOKEN: TOKEN } });
    const browser: Browser = await launchChromium();
    const requests = new AbortController();
    const running = keepBusy(server.url, requests.signal).catch((error) => {
      if (!requests.signal.aborted) throw error;
    });
    try {
      await using opened = await openPage(browser, server.url, desktop);
      const { page, complaints } = opened;

      await t.step("asks for the API key", async () => {
        await page.locator("#token-title:text('needs an API key')").waitFor();
        await answerDialog(page, "wrong");
        await page.locator("#token-error:text('not an API key')").waitFor();
        await unlock(page);
        // The browser reports each answer of 401, which is how the page learns that it needs a key.
        assert.deepEqual(complaints.filter((text) => !text.includes("401")), []);
        complaints.length = 0;
      });

      await t.step("shows instances, numbers and requests, and text as text", async () => {
        assert.equal(await page.locator("#model").innerText(), MODEL);
        for (const name of ["instance-0", "instance-1"]) {
          await card(page, name).locator(".chip:text-is('serving')").waitFor();
          await card(page, name).locator("[role=meter][aria-valuenow]").waitFor();
        }
        await page.locator("#tile-requests:text-is('1')").waitFor();
        await page.locator("button.mark[data-running]").waitFor();
        await page.locator("#tile-output:not(:text-is('–')):not(:text-is('0'))").waitFor();
        await page.locator("#events li:has-text('instance-1 serves')").waitFor();
        await page.locator("#plot-ttft canvas").waitFor();
      });

      await t.step("the keyboard reaches a request, and moves it", async () => {
        await page.locator("#operate").click();
        await answerDialog(page, "wrong");
        await page.locator("#token-error:text('not the admin token')").waitFor();
        assert.deepEqual(complaints.filter((text) => !/40[13]/.test(text)), []);
        complaints.length = 0;
        await answerDialog(page, TOKEN);
        await page.locator("#operate:text-is('Stop operating')").waitFor();
        const kept = await page.evaluate(
          "JSON.stringify([{ ...sessionStorage }, { ...localStorage }])",
        );
        assert.deepEqual(JSON.parse(String(kept)), [{ "llumnix-api-key /": KEY }, {}]);

        const from = await placeOfMark(page);
        await page.locator("#instances").focus();
        for (let i = 0; i < 12; i++) {
          await page.keyboard.press("Tab");
          if (await page.evaluate("document.activeElement.matches('.mark')")) break;
        }
        await page.locator(`#tip:has-text('running on ${from}')`).waitFor();
        const label = await page.locator("button.mark:focus").getAttribute("aria-label");
        assert.match(label ?? "", /^Request cmpl-.*running on instance-\d.*Output \d+ of at most/);
        await page.keyboard.press("Enter");
        await page.locator(`#request-to option[value="${other(from)}"]`).waitFor({
          state: "attached",
        });
        await page.locator("#request-go").focus();
        await page.keyboard.press("Enter");
        await card(page, other(from)).locator("button.mark[data-moved]").waitFor();
        await page.locator(".toast:has-text('downtime')").waitFor();
        await page.locator("#events li[data-kind=move]:has-text('1 request moved')").waitFor();
        await page.locator("#tile-moves:text-is('1')").waitFor();
      });

      await t.step("the pointer drags a request, and reads of its moves", async () => {
        const from = await placeOfMark(page);
        const mark = await page.locator("button.mark:not([data-flying])").boundingBox();
        const target = await card(page, other(from)).locator(".marks").boundingBox();
        await page.mouse.move(mark!.x + 6, mark!.y + 6);
        await page.mouse.down();
        await page.mouse.move(target!.x + 60, target!.y + 12, { steps: 8 });
        await card(page, other(from)).and(page.locator("[data-drop=over]")).waitFor();
        await page.mouse.up();
        await card(page, other(from)).locator("button.mark[data-moved]").waitFor();
        await page.locator("#tile-moves:text-is('2')").waitFor();
        await page.locator("button.mark:not([data-flying])").hover();
        await page.locator("#tip .moved:has-text('downtime')").first().waitFor();
        await page.mouse.move(2, 2);
      });

      await t.step("the chat streams, and says which instance answers", async () => {
        await page.locator("#chat-text").fill("hello");
        await page.keyboard.press("Enter");
        await page.locator("#chat-log .by b:text-matches('^instance-[01]')").waitFor();
        await page.locator("button.mark[data-mine]").waitFor();
        await page.locator("#chat-log .said").nth(1).filter({ hasText: /\S{3}/ }).waitFor();
        await page.locator("#chat-send:text-is('Stop')").click();
        await page.locator("#chat-send:text-is('Send')").waitFor();
      });

      await t.step("an operator drains, keeps, adds and removes", async () => {
        await card(page, "instance-1").getByRole("button", { name: "Drain" }).click();
        await card(page, "instance-1").locator(".chip:text-matches('drain(ing|ed)')").waitFor();
        await card(page, "instance-1").getByRole("button", { name: "Keep" }).click();
        await card(page, "instance-1").locator(".chip:text-is('serving')").waitFor();
        await page.locator("#add").click();
        await card(page, "instance-2").locator(".chip:text-is('serving')").waitFor();
        await card(page, "instance-2").getByRole("button", { name: "Remove" }).click();
        await page.locator("#confirm-dialog button[value=yes]").click();
        await card(page, "instance-2").waitFor({ state: "detached" });
      });

      await t.step("a screen reader finds names and landmarks", async () => {
        const tree = await page.locator("body").ariaSnapshot();
        for (
          const part of [
            'heading "Llumnix"',
            'heading "Instances"',
            'meter "KV cache of instance-0 in use"',
            'group "Requests on instance-0"',
            'textbox "Message"',
            'log "Events"',
            'button "Drain instance-0"',
          ]
        ) assert.ok(tree.includes(part), `${part} is not in\n${tree}`);
        const nameless = await page.getByRole("button", { name: /^$/ }).count();
        assert.equal(nameless, 0, "buttons without a name");
      });

      await t.step("a request waits beside the cards until its instance has one", async () => {
        await using early = await openPage(browser, "about:blank", desktop);
        // The order of events when the manager answers late.
        await early.page.route(
          "**/page/feed",
          (route) => route.fulfill({ contentType: "text/event-stream", body: LATE_INSTANCES }),
        );
        await early.page.goto(server.url);
        await card(early.page, "late").locator("button.mark").waitFor();
        assert.equal(await early.page.locator("#unplaced-marks button.mark").count(), 0);
      });

      await t.step("a request that moves again meanwhile flies to its last place", async () => {
        await using moving = await openPage(browser, "about:blank", desktop);
        await moving.page.route(
          "**/page/feed",
          (route) => route.fulfill({ contentType: "text/event-stream", body: MOVING_TWICE }),
        );
        await moving.page.goto(server.url);
        await card(moving.page, "c").locator("button.mark").waitFor();
        const miss = await moving.page.waitForFunction(MISS_OF_LAST_TRAIL);
        assert.ok(Number(await miss.jsonValue()) < 1, `${miss} pixels off`);
      });

      await t.step("what sixteen instances have to tell stays within their cards", async () => {
        for (const size of [desktop, phone]) {
          await using full = await openPage(browser, "about:blank", size);
          await full.page.route(
            "**/page/feed",
            (route) => route.fulfill({ contentType: "text/event-stream", body: FULL_INSTANCES }),
          );
          await full.page.goto(server.url);
          await full.page.locator(".card").nth(15).waitFor();
          assert.deepEqual(await full.page.evaluate(OUT_OF_CARDS), []);
          const percent = card(full.page, "instance-mx349aga-7").locator("text=KV 99%");
          assert.ok(await percent.isVisible());
        }
      });

      await t.step("320 pixels are wide enough", async () => {
        await using small = await openPage(browser, server.url, phone);
        await unlock(small.page);
        await small.page.locator("button.mark").first().waitFor();
        assert.deepEqual(await small.page.evaluate(TOO_WIDE), []);
        assert.equal(await small.page.evaluate("document.documentElement.scrollWidth"), 320);
      });

      assert.deepEqual(complaints, [], "the console has no errors");
    } finally {
      requests.abort();
      await running;
      await browser.close();
    }
    assert.equal((await server.program.stop()).code, 0);
  },
});
