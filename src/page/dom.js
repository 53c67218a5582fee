/** Small helpers. Text from outside goes into the document only as text, never as HTML. */

/**
 * An element of the page by its id.
 * @template {Element} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function $(id) {
  return /** @type {T} */ (/** @type {unknown} */ (document.getElementById(id)));
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className !== "") element.className = className;
  element.append(...children);
  return element;
}

/** Writes only what changed. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {HTMLElement} element @param {string} name @param {string | null} value null removes it */
export function setData(element, name, value) {
  if (value === null) delete element.dataset[name];
  else if (element.dataset[name] !== value) element.dataset[name] = value;
}

/** A message at the edge of the window, for some seconds. @param {string} text @param {"note" | "bad"} kind */
export function toast(text, kind = "note") {
  const element = make("div", "toast", text);
  element.dataset.kind = kind;
  const box = $("toasts");
  while (box.childElementCount >= 3) box.firstElementChild?.remove();
  box.append(element);
  setTimeout(() => element.remove(), kind === "bad" ? 9_000 : 5_000);
}

/** True where animations are unwelcome. */
export function isStill() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
