/** Follows the server's event stream. EventSource sends no headers, and an API key is one: hence `fetch`. */
import { bearer, errorOf, secret } from "./access.js";

/** @import { FeedState, FeedTick } from "../server/feed/records.ts" */

/** The server sends twice a second: a stream that is silent for so long is dead. */
const SILENCE_MS = 10_000;
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 8_000;

/**
 * @typedef {object} FeedListener
 * @property {(state: FeedState) => void} onState
 * @property {(tick: FeedTick) => void} onTick
 * @property {(state: "live" | "wait" | "lost", words: string) => void} onLink
 * @property {() => Promise<void>} onLocked the server wants an API key; resolves when there is one
 */

/** Runs for as long as the page is open. @param {FeedListener} listener */
export async function followFeed(listener) {
  let pauseMs = FIRST_RETRY_MS;
  for (;;) {
    try {
      const began = await readOnce(listener);
      if (began) pauseMs = FIRST_RETRY_MS;
      listener.onLink("lost", "Reconnecting");
    } catch (error) {
      listener.onLink("lost", error instanceof Refusal ? error.message : "Reconnecting");
    }
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    pauseMs = Math.min(2 * pauseMs, MAX_RETRY_MS);
  }
}

/** The server answered, and does not send the stream. */
class Refusal extends Error {}

/** @param {FeedListener} listener @returns {Promise<boolean>} whether anything came */
async function readOnce(listener) {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), SILENCE_MS);
  try {
    const response = await fetch("page/feed", {
      headers: bearer(secret("key")),
      signal: abort.signal,
      cache: "no-store",
    });
    if (response.status === 401) {
      clearTimeout(timer);
      listener.onLink("wait", "Locked");
      await listener.onLocked();
      return true;
    }
    if (!response.ok || response.body === null) throw new Refusal(await errorOf(response));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let began = false;; began = true) {
      const { done, value } = await reader.read();
      if (done) return began;
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENCE_MS);
      const events = (text + value).split("\n\n");
      text = events.pop() ?? "";
      for (const event of events) deliver(event, listener);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** @param {string} event @param {FeedListener} listener */
function deliver(event, listener) {
  const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(event) ?? [];
  if (name === undefined) return; // a comment, which keeps the connection alive
  const record = JSON.parse(data);
  if (name === "state") listener.onState(record);
  else if (name === "tick") listener.onTick(record);
  listener.onLink("live", "Live");
}
