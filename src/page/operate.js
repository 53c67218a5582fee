/** What an operator changes, by the admin routes of the server. */
import { askFor, bearer, errorOf, keepSecret, secret } from "./access.js";
import { $, toast } from "./dom.js";
import { bytes, duration, shortId } from "./format.js";

/** @import { HostAction } from "./hosts.js" */
/** @import { Action } from "./instances.js" */

export class Operator {
  /** @param {() => void} onChange the page was locked or unlocked */
  constructor(onChange) {
    this.onChange = onChange;
  }

  get isUnlocked() {
    return secret("token") !== null;
  }

  /** Asks for the admin token; locks the page again if it is unlocked. */
  async toggle() {
    if (this.isUnlocked) keepSecret("token", null);
    else await askFor("token", checkToken);
    this.onChange();
  }

  async add() {
    const added = await this.#send("POST", "admin/instances");
    if (added !== null) toast(`${added.id} starts`);
  }

  /** @param {Action} action @param {string} id */
  async change(action, id) {
    if (action === "remove" && !await confirmRemoval(id)) return;
    const path = `admin/instances/${encodeURIComponent(id)}`;
    const done = action === "remove"
      ? await this.#send("DELETE", path)
      : await this.#send("POST", `${path}/${action}`);
    if (done === null) return;
    const words = {
      drain: "drains: its requests move away",
      keep: "takes requests again",
      remove: "is being removed",
    };
    toast(`${id} ${words[action]}`);
  }

  /** @param {HostAction} action @param {string} host */
  async changeHost(action, host) {
    const done = await this.#send("POST", `admin/hosts/${encodeURIComponent(host)}/${action}`);
    if (done === null) return;
    toast(
      action === "drain"
        ? `${host} drains: its requests move away`
        : `${host} takes requests again`,
    );
  }

  /** @param {string} requestId @param {string} instance */
  async move(requestId, instance) {
    const report = await this.#send(
      "POST",
      `admin/requests/${encodeURIComponent(requestId)}/migrate`,
      { instance },
    );
    if (report === null) return;
    toast(
      `${shortId(requestId)} moved from ${report.from} to ${report.to}: ${
        duration(report.downtime_ms)
      } downtime, ` +
        `${bytes(report.bytes)}`,
    );
  }

  /**
   * @param {string} method @param {string} path @param {object} [body]
   * @returns {Promise<any>} null: it failed, and the reader was told
   */
  async #send(method, path, body) {
    try {
      const response = await fetch(path, {
        method,
        headers: {
          ...bearer(secret("token")),
          ...(body ? { "content-type": "application/json" } : {}),
        },
        body: body && JSON.stringify(body),
      });
      if (response.ok) return await response.json();
      if (response.status === 401 || response.status === 403) {
        keepSecret("token", null);
        this.onChange();
      }
      toast(await errorOf(response), "bad");
    } catch {
      toast("The server cannot be reached", "bad");
    }
    return null;
  }
}

/** @param {string} token @returns {Promise<string | null>} */
async function checkToken(token) {
  try {
    const response = await fetch("admin/instances", { headers: bearer(token) });
    if (response.ok) return null;
    if (response.status === 401 || response.status === 403) {
      return "This is not the admin token of this server.";
    }
    return await errorOf(response);
  } catch {
    return "The server cannot be reached.";
  }
}

/** @param {string} id @returns {Promise<boolean>} */
function confirmRemoval(id) {
  const dialog = /** @type {HTMLDialogElement} */ ($("confirm-dialog"));
  $("confirm-title").textContent = `Remove ${id}?`;
  $("confirm-text").textContent = "Its requests move to other instances, then its process stops.";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}
