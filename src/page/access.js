/** The API key and the admin token: asked for when they are needed. */
import { $, setText } from "./dom.js";

/** @typedef {"key" | "token"} Secret */

/**
 * The tab keeps the API key over a reload, by the path of the page: behind --root-path, other services of
 * the same origin have pages of their own in the tab, and must not be sent this one's key.
 */
const keyName = `llumnix-api-key ${new URL(".", location.href).pathname}`;

/**
 * The admin token is kept nowhere but here, until the page is left or reloaded: what is stored can be read
 * by every page of the origin that the tab shows later.
 * @type {string | null}
 */
let adminToken = null;

/** @param {Secret} which @returns {string | null} */
export function secret(which) {
  return which === "token" ? adminToken : sessionStorage.getItem(keyName);
}

/** @param {Secret} which @param {string | null} value */
export function keepSecret(which, value) {
  if (which === "token") adminToken = value;
  else if (value === null) sessionStorage.removeItem(keyName);
  else sessionStorage.setItem(keyName, value);
}

/** @param {string | null} value @returns {Record<string, string>} */
export function bearer(value) {
  return value === null ? {} : { authorization: `Bearer ${value}` };
}

const words = {
  key: {
    title: "This service needs an API key",
    why: "What the page shows, and the chat, are for clients with a key of --api-key.",
    label: "API key",
  },
  token: {
    title: "Operate the service",
    why: "With the admin token you can drain, add and remove instances, and move requests.",
    label: "Admin token",
  },
};

/**
 * Shows the dialog for a key or a token.
 * @param {Secret} which
 * @param {(value: string) => Promise<string | null>} check says what is wrong with it, or null
 * @returns {Promise<boolean>} false: the dialog was closed
 */
export function askFor(which, check) {
  const dialog = /** @type {HTMLDialogElement} */ ($("token-dialog"));
  const form = /** @type {HTMLFormElement} */ ($("token-form"));
  const input = /** @type {HTMLInputElement} */ ($("token-text"));
  const error = $("token-error");
  setText($("token-title"), words[which].title);
  setText($("token-why"), words[which].why);
  setText($("token-label"), words[which].label);
  setText(error, "");
  input.value = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    let isRight = false;
    form.onsubmit = async (event) => {
      event.preventDefault();
      const value = input.value.trim();
      if (/[^\x21-\x7e]/.test(value)) {
        setText(error, "It has characters that no key or token has.");
        return;
      }
      setText(error, "");
      const problem = await check(value);
      if (problem !== null) {
        setText(error, problem);
        input.select();
        return;
      }
      keepSecret(which, value);
      isRight = true;
      dialog.close();
    };
    $("token-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      input.value = "";
      resolve(isRight);
    };
  });
}

/** The message of an answer that is an error. @param {Response} response @returns {Promise<string>} */
export async function errorOf(response) {
  try {
    const body = await response.json();
    const message = body?.error?.message ?? body?.message;
    if (typeof message === "string") return message;
  } catch {
    // no JSON: a proxy answered
  }
  return `The server answered ${response.status} ${response.statusText}`.trim();
}
