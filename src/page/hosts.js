/** The hosts of the cluster, and who leads it. Hidden while all instances are on one host. */
import { $, make, setData, setText } from "./dom.js";
import { counted } from "./format.js";

/** @import { FeedHost, FeedLeadership } from "../server/feed/records.ts" */

/** @typedef {"drain" | "keep"} HostAction */

export class Hosts {
  /** @type {Map<string, { root: HTMLElement, text: HTMLElement, state: HTMLElement, button: HTMLButtonElement }>} */
  #rows = new Map();
  #box = $("hosts");
  /** Set once the admin token is known. */
  isOperator = false;

  /** @param {(action: HostAction, host: string) => void} onAction */
  constructor(onAction) {
    this.onAction = onAction;
  }

  /** @param {readonly FeedHost[]} hosts @param {FeedLeadership | null} leadership */
  show(hosts, leadership) {
    this.#box.hidden = hosts.length < 2 && hosts.every(({ state }) => state === "serving");
    const names = new Set(hosts.map(({ name }) => name));
    for (const [name, { root }] of this.#rows) {
      if (names.has(name)) continue;
      root.remove();
      this.#rows.delete(name);
    }
    for (const host of hosts) this.#paint(host);
    $("leader").hidden = leadership === null;
    if (leadership !== null) setText($("leader"), leaderText(leadership));
    setData($("leader"), "state", leadership?.storeProblem == null ? null : "bad");
  }

  /** @param {FeedHost} host */
  #paint({ name, state, instances, available }) {
    let row = this.#rows.get(name);
    if (row === undefined) this.#rows.set(name, row = this.#add(name));
    setText(row.text, `${counted(instances, "instance")}, ${available} available`);
    setText(row.state, state);
    setData(row.state, "state", state);
    row.button.hidden = !this.isOperator;
    const action = state === "serving" ? "Drain" : "Keep";
    setText(row.button, action);
    row.button.setAttribute("aria-label", `${action} host ${name}`);
    row.button.onclick = () => this.onAction(action === "Drain" ? "drain" : "keep", name);
  }

  /** @param {string} name */
  #add(name) {
    const text = make("span", "muted"),
      state = make("span", "chip"),
      button = make("button", "small");
    button.type = "button";
    const root = make("li", "", make("b", "", name), state, text, button);
    this.#box.append(root);
    return { root, text, state, button };
  }
}

/** @param {FeedLeadership} leadership */
function leaderText({ leader, epoch, storeProblem }) {
  const who = leader === "" ? "No manager leads" : `${leader} leads, epoch ${epoch}`;
  return storeProblem === null ? who : `${who}; lease store: ${storeProblem}`;
}
