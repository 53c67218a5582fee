/** The cards of the instances. */
import { $, make, setData, setText } from "./dom.js";
import { integer, loadText } from "./format.js";

/** @import { FeedInstance } from "../server/feed/records.ts" */
/** @import { Model } from "./model.js" */

/** How long the card of an instance stays after its end. */
const GONE_MS = 4_000;

/** @typedef {"drain" | "keep" | "remove"} Action */

/**
 * @typedef {object} Card
 * @property {HTMLElement} root
 * @property {HTMLElement} marks
 * @property {Record<string, HTMLElement>} parts
 * @property {HTMLElement} actions
 * @property {FeedInstance | null} instance null: it is gone
 */

export class Instances {
  /** @type {Map<string, Card>} */
  #cards = new Map();
  #box = $("instances");
  /** The instances are on several hosts. */
  #showsHosts = false;
  /** Set once the admin token is known. */
  isOperator = false;

  /** @param {(action: Action, id: string) => void} onAction */
  constructor(onAction) {
    this.onAction = onAction;
  }

  /** Where the marks of an instance are; for an unknown one, where requests wait. @param {string | null} id */
  marksOf = (/** @type {string | null} */ id) =>
    (id === null ? undefined : this.#cards.get(id))?.marks ?? $("unplaced-marks");

  /** @param {Element | null} element @returns {FeedInstance | null} */
  instanceAt(element) {
    const root = element?.closest(".card");
    for (const card of this.#cards.values()) if (card.root === root) return card.instance;
    return null;
  }

  /** @returns {Iterable<{ root: HTMLElement, instance: FeedInstance | null }>} */
  get cards() {
    return this.#cards.values();
  }

  /** @param {Model} model */
  show({ instances }) {
    if (instances.length > 0) this.#box.querySelector(":scope > .empty")?.remove();
    this.#showsHosts = new Set(instances.map(({ host }) => host)).size > 1;
    const ids = new Set(instances.map(({ id }) => id));
    for (const [id, card] of this.#cards) if (!ids.has(id)) this.#lose(id, card);
    for (const instance of instances) {
      let card = this.#cards.get(instance.id);
      if (card === undefined) this.#cards.set(instance.id, card = this.#add(instance));
      card.instance = instance;
      this.#paint(card, instance);
    }
  }

  /** One mark of each card can be reached with the Tab key; the arrow keys lead to the others. */
  updateTabStops() {
    for (const { marks } of this.#cards.values()) {
      if (marks.querySelector("button[tabindex='0']:not(:disabled)") !== null) continue;
      marks.querySelector("button:not(:disabled)")?.setAttribute("tabindex", "0");
    }
  }

  /** @param {FeedInstance} instance @returns {Card} */
  #add({ id }) {
    const name = make("h3", "", id);
    name.title = id;
    name.id = `instance-${this.#cards.size}-${Date.now()}`;
    const host = make("span", "chip"),
      type = make("span", "chip"),
      state = make("span", "chip state");
    const actions = make("div", "card-actions");
    for (const action of /** @type {Action[]} */ (["drain", "keep", "remove"])) {
      const button = make("button", "", action[0].toUpperCase() + action.slice(1));
      button.type = "button";
      button.dataset.action = action;
      button.setAttribute("aria-label", `${button.textContent} ${id}`);
      button.onclick = () => this.onAction(action, id);
      actions.append(button);
    }
    const bar = make("div", "meter", make("i"));
    bar.setAttribute("role", "meter");
    bar.setAttribute("aria-label", `KV cache of ${id} in use`);
    bar.setAttribute("aria-valuemin", "0");
    bar.setAttribute("aria-valuemax", "100");
    const share = make("i"), blocks = make("i", "blocks"), unit = make("i", "unit");
    const used = make("span", "", share, blocks, unit);
    const marks = make("div", "marks");
    marks.setAttribute("role", "group");
    marks.setAttribute("aria-label", `Requests on ${id}`);
    const counts = make("span", "counts"), load = make("span");
    load.title = "Dispatch load: the instance with the least gets the next request";
    const root = make(
      "article",
      "card",
      make("div", "card-head", name, host, type, state, actions),
      bar,
      make("div", "card-line", used, load),
      marks,
      make("div", "card-line", counts),
    );
    root.tabIndex = -1;
    root.setAttribute("aria-labelledby", name.id);
    this.#box.append(root);
    return {
      root,
      marks,
      actions,
      parts: { host, type, state, bar, share, blocks, unit, counts, load },
      instance: null,
    };
  }

  /** @param {Card} card @param {FeedInstance} instance */
  #paint({ root, parts, actions }, instance) {
    const { host, type, state, totalBlocks, usedBlocks, load, running, waiting, preempted } =
      instance;
    setData(root, "state", state);
    setText(parts.host, host ?? "");
    parts.host.hidden = !this.#showsHosts || host === null;
    setText(parts.type, type);
    parts.type.hidden = type === "both";
    setText(parts.state, state);
    setData(parts.state, "state", state);
    const share = totalBlocks && usedBlocks !== null ? usedBlocks / totalBlocks : 0;
    const percent = Math.round(100 * share);
    parts.bar.style.setProperty("--used", share.toFixed(3));
    parts.bar.setAttribute("aria-valuenow", String(percent));
    setData(parts.bar, "level", share > 0.97 ? "full" : share > 0.85 ? "high" : "normal");
    const isKnown = usedBlocks !== null && totalBlocks !== null;
    const count = isKnown ? `${integer(usedBlocks)} of ${integer(totalBlocks)}` : "";
    setText(parts.share, isKnown ? `KV ${percent}%` : "KV –");
    setText(parts.blocks, isKnown ? ` · ${count}` : "");
    setText(parts.unit, isKnown ? " blocks" : "");
    parts.bar.title = isKnown ? `${count} KV blocks in use` : "";
    const counts = [`${running ?? 0} running`];
    if (waiting) counts.push(`${waiting} waiting`);
    if (preempted) counts.push(`${preempted} preempted`);
    setText(parts.counts, counts.join(" · "));
    setText(parts.load, loadText(load));
    const isServing = state === "serving", isDraining = state === "draining" || state === "drained";
    actions.hidden = !this.isOperator;
    for (const button of actions.querySelectorAll("button")) {
      const { action } = button.dataset;
      button.hidden = action === "drain"
        ? !isServing
        : action === "keep"
        ? !isDraining
        : !isServing && !isDraining;
    }
  }

  /** @param {string} id @param {Card} card */
  #lose(id, card) {
    if (card.instance === null) return;
    card.instance = null;
    setData(card.root, "state", "gone");
    setText(card.parts.state, "gone");
    setData(card.parts.state, "state", "gone");
    card.actions.hidden = true;
    setTimeout(() => {
      if (card.instance !== null) return; // it came back
      card.root.remove();
      this.#cards.delete(id);
    }, GONE_MS);
  }
}
