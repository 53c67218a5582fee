/** The chat: answers stream in, and each says which instance it comes from. */
import { bearer, errorOf, secret } from "./access.js";
import { $, make, setText } from "./dom.js";
import { counted, duration, rate } from "./format.js";
import { moveText } from "./pointing.js";

/** @import { FeedTick } from "../server/feed/records.ts" */
/** @import { Marks } from "./marks.js" */
/** @import { Model, Request } from "./model.js" */

const MAX_TOKENS = 512;
/** Messages that are sent along; of longer conversations, the newest. */
const MAX_MESSAGES = 40;

/**
 * One answer.
 * @typedef {object} Answer
 * @property {string} prefix of its request's id in the cluster
 * @property {HTMLElement} item
 * @property {HTMLElement} said
 * @property {HTMLElement} by
 * @property {string} text
 * @property {string[]} instances that served it, in order
 * @property {string[]} moves
 * @property {string} pace
 */

export class Chat {
  /** @type {{ role: "user" | "assistant", content: string }[]} */
  #messages = [];
  /** @type {Answer[]} */
  #answers = [];
  /** @type {AbortController | null} */
  #running = null;
  #log = $("chat-log");
  #text = /** @type {HTMLTextAreaElement} */ ($("chat-text"));
  #send = /** @type {HTMLButtonElement} */ ($("chat-send"));

  /** @param {Model} model @param {Marks} marks */
  constructor(model, marks) {
    this.model = model;
    this.marks = marks;
    /** @type {HTMLFormElement} */ ($("chat-form")).onsubmit = (event) => {
      event.preventDefault();
      if (this.#running !== null) this.#running.abort();
      else this.#ask();
    };
    this.#text.onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (this.#running === null) this.#ask();
    };
    $("chat-clear").onclick = () => this.#clear();
  }

  /** The feed tells where the requests of the chat are. @param {FeedTick | null} tick */
  update(tick) {
    if (this.#answers.length === 0) return;
    const short = tick?.added ?? []; // some of them have ended already
    for (const request of [...this.model.requests.values(), ...short]) this.#note(request);
  }

  /** @param {Request | import("../server/feed/records.ts").FeedRequest} request */
  #note(request) {
    const answer = this.#answers.find(({ prefix }) => request.id.startsWith(prefix));
    if (answer === undefined) return;
    if (request.instance !== null && answer.instances.at(-1) !== request.instance) {
      answer.instances.push(request.instance);
    }
    if ("moves" in request) answer.moves = request.moves.map(moveText);
    this.#paint(answer);
  }

  /** @param {Answer} answer */
  #paint({ by, instances, moves, pace }) {
    const wasAtEnd = this.#isAtEnd;
    const parts = /** @type {(Node | string)[]} */ ([]);
    if (instances.length > 0) parts.push(make("b", "", instances.join(" → ")));
    if (pace !== "") parts.push(`${parts.length > 0 ? " · " : ""}${pace}`);
    by.replaceChildren(...parts, ...moves.map((move) => make("div", "moved", `moved ${move}`)));
    this.#follow(wasAtEnd);
  }

  #clear() {
    this.#running?.abort();
    this.#messages = [];
    this.#answers = [];
    this.#log.replaceChildren();
    this.marks.mine.clear();
    $("chat-clear").hidden = true;
    this.#text.focus();
  }

  async #ask() {
    const content = this.#text.value.trim();
    if (content === "") return;
    this.#text.value = "";
    $("chat-clear").hidden = false;
    this.#log.append(make("li", "you", make("p", "said", content)));
    this.#messages.push({ role: "user", content });
    const id = `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
    const answer = this.#open(`chatcmpl-${id}-`);
    const abort = this.#running = new AbortController();
    setText(this.#send, "Stop");
    try {
      await this.#stream(id, answer, abort.signal);
    } catch (error) {
      if (!abort.signal.aborted) {
        answer.item.classList.add("failed");
        setText(answer.said, error instanceof Error ? error.message : String(error));
      } else if (answer.text === "") {
        setText(answer.said, "(stopped)");
      }
    }
    if (answer.text === "") this.#messages.pop();
    else this.#messages.push({ role: "assistant", content: answer.text });
    answer.item.classList.remove("waiting");
    answer.item.removeAttribute("aria-busy");
    this.#running = null;
    setText(this.#send, "Send");
  }

  /** @param {string} prefix @returns {Answer} */
  #open(prefix) {
    const said = make("p", "said"), by = make("p", "by");
    const item = make("li", "waiting", said, by);
    item.setAttribute("aria-busy", "true"); // a screen reader reads the whole answer, not each token
    this.#log.append(item);
    this.#follow(true);
    const answer = { prefix, item, said, by, text: "", instances: [], moves: [], pace: "" };
    this.#answers.push(answer);
    this.marks.mine.add(prefix);
    return answer;
  }

  /** @param {string} id @param {Answer} answer @param {AbortSignal} signal */
  async #stream(id, answer, signal) {
    const startedMs = performance.now();
    const isHigh = /** @type {HTMLInputElement} */ ($("chat-high")).checked;
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      signal,
      headers: { ...bearer(secret("key")), "content-type": "application/json", "x-request-id": id },
      body: JSON.stringify({
        model: this.model.model,
        messages: this.#messages.slice(-MAX_MESSAGES),
        max_tokens: MAX_TOKENS,
        stream: true,
        stream_options: { include_usage: true },
        ...(isHigh ? { priority: "high" } : {}),
      }),
    });
    if (!response.ok || response.body === null) throw new Error(await errorOf(response));
    let firstMs = 0, tokens = 0;
    for await (const chunk of chunksOf(response.body)) {
      if (chunk.error) throw new Error(chunk.error.message ?? "The answer failed.");
      const piece = chunk.choices?.[0]?.delta?.content ?? "";
      tokens = chunk.usage?.completion_tokens ?? tokens;
      if (piece === "") continue;
      firstMs ||= performance.now();
      answer.text += piece;
      const wasAtEnd = this.#isAtEnd;
      setText(answer.said, answer.text);
      this.#follow(wasAtEnd);
    }
    if (firstMs === 0) setText(answer.said, "(an empty answer)");
    const tookMs = performance.now() - firstMs;
    const parts = [counted(tokens, "token")];
    if (firstMs > 0) parts.push(`first after ${duration(firstMs - startedMs)}`);
    if (tokens > 1 && tookMs > 0) parts.push(`${rate((tokens - 1) / tookMs * 1000)} tokens/s`);
    answer.pace = parts.join(", ");
    this.#paint(answer);
  }

  get #isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.#log;
    return scrollTop + clientHeight > scrollHeight - 40;
  }

  /** @param {boolean} wasAtEnd */
  #follow(wasAtEnd) {
    if (wasAtEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }
}

/** The JSON of each event of a stream. @param {ReadableStream<Uint8Array>} body */
async function* chunksOf(body) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const data = event.startsWith("data: ") ? event.slice(6) : "[DONE]";
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
