/** One mark for each request, in the card of its instance. A request that moves takes its mark along. */
import { isStill, make, setData } from "./dom.js";
import { shortId } from "./format.js";

/** @import { Request } from "./model.js" */

/** Marks that fly at the same time; of more moves, the others jump. */
const MAX_FLIGHTS = 40;
const FLIGHT_MS = 1_100;
/** How long a mark shows that its request has moved. */
const MOVED_MS = 12_000;
const FADE_MS = 350;
/** Marks close ranks in this time. */
const SETTLE_MS = 300;

/**
 * @typedef {object} Mark
 * @property {HTMLButtonElement} element
 * @property {Request} request
 * @property {string | null} instance whose card it is in
 * @property {number} movedUntilMs
 */

export class Marks {
  /** @type {Map<number, Mark>} */
  #marks = new Map();
  /** Of the chat of this page. @type {Set<string>} */
  mine = new Set();

  /**
   * @param {(instance: string | null) => HTMLElement} boxOf where the marks of an instance are
   * @param {SVGElement} flights
   */
  constructor(boxOf, flights) {
    this.boxOf = boxOf;
    this.flights = flights;
  }

  /** @param {Element | null} element @returns {Request | null} */
  requestOf(element) {
    const button = element?.closest("button.mark");
    if (!(button instanceof HTMLElement)) return null;
    return this.#marks.get(Number(button.dataset.key))?.request ?? null;
  }

  /** @param {number} key @returns {HTMLElement | null} */
  elementOf(key) {
    return this.#marks.get(key)?.element ?? null;
  }

  /** Shows these requests, and no others. @param {ReadonlyMap<number, Request>} requests */
  show(requests) {
    const nowMs = performance.now();
    for (const [key, mark] of this.#marks) {
      if (requests.get(key)?.id !== mark.request.id) this.#end(key, mark);
    }
    this.#move(requests, nowMs);
    for (
      const box of new Set([...this.#marks.values()].map(({ element }) => element.parentElement))
    ) {
      if (box !== null) closeRanks(box);
    }
    for (const [key, request] of requests) {
      let mark = this.#marks.get(key);
      if (mark === undefined) {
        mark = this.#make(request);
        place(mark.element, this.boxOf(request.instance));
        this.#marks.set(key, mark);
      }
      mark.request = request;
      this.#paint(mark, nowMs);
    }
  }

  /** @param {Request} request @returns {Mark} */
  #make(request) {
    const element = make("button", "mark");
    element.type = "button";
    element.tabIndex = -1;
    element.dataset.key = String(request.key);
    if (request.isHigh) element.dataset.high = "1";
    element.setAttribute("aria-label", `Request ${shortId(request.id)}`);
    return { element, request, instance: request.instance, movedUntilMs: 0 };
  }

  /** @param {Mark} mark @param {number} nowMs */
  #paint({ element, request, movedUntilMs }, nowMs) {
    setData(element, "running", request.isRunning ? "1" : null);
    setData(element, "moved", movedUntilMs > nowMs ? "1" : null);
    setData(element, "mine", this.#isMine(request) ? "1" : null);
    const done = Math.min(1, request.outputTokens / Math.max(1, request.maxTokens)).toFixed(2);
    if (element.style.getPropertyValue("--done") !== done) {
      element.style.setProperty("--done", done);
    }
  }

  /** @param {Request} request */
  #isMine({ id }) {
    for (const prefix of this.mine) if (id.startsWith(prefix)) return true;
    return false;
  }

  /** @param {ReadonlyMap<number, Request>} requests @param {number} nowMs */
  #move(requests, nowMs) {
    // Also a mark whose instance has got its card only now.
    const moving = [...this.#marks.values()].filter(({ element, request: { key } }) => {
      const request = requests.get(key);
      return request !== undefined && this.boxOf(request.instance) !== element.parentElement;
    });
    if (moving.length === 0) return;
    const flying = isStill() ? [] : moving.slice(0, MAX_FLIGHTS);
    const from = flying.map(({ element }) => element.getBoundingClientRect());
    for (const mark of moving) {
      const { element, instance } = mark;
      endFlight(element);
      const now = requests.get(mark.request.key)?.instance ?? null;
      if (instance !== null && now !== null && instance !== now) {
        mark.movedUntilMs = nowMs + MOVED_MS;
      }
      mark.instance = now;
      const hadFocus = document.activeElement === element;
      leaveHole(element);
      place(element, this.boxOf(now));
      if (hadFocus) element.focus({ preventScroll: true });
    }
    for (const [i, mark] of flying.entries()) this.#fly(mark, from[i]);
  }

  /** @param {Mark} mark @param {DOMRect} from */
  #fly({ element }, from) {
    const to = element.getBoundingClientRect();
    const dx = from.x - to.x, dy = from.y - to.y;
    if (from.width === 0 || to.width === 0 || (dx === 0 && dy === 0)) return;
    // An arc: sideways of the straight line, by a part of its length.
    const bend = Math.min(60, Math.hypot(dx, dy) / 5);
    const length = Math.hypot(dx, dy) || 1;
    const mx = dx / 2 + (dy / length) * bend, my = dy / 2 - (dx / length) * bend;
    element.dataset.flying = "1";
    const flight = element.animate([
      { transform: `translate(${dx}px, ${dy}px) scale(1)` },
      { transform: `translate(${mx}px, ${my}px) scale(1.7)`, easing: "ease-out" },
      { transform: "none" },
    ], { duration: FLIGHT_MS, easing: "ease-in" });
    flight.onfinish = () => delete element.dataset.flying;
    const half = from.width / 2;
    this.#trail(
      `M${from.x + half} ${from.y + half} Q${to.x + mx * 2 - dx / 2 + half} ${
        to.y + my * 2 - dy / 2 + half
      } ${to.x + half} ${to.y + half}`,
    );
  }

  /** @param {string} d */
  #trail(d) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", d);
    path.setAttribute("pathLength", "1");
    path.setAttribute("stroke-dasharray", "1");
    this.flights.append(path);
    const line = path.animate([
      { strokeDashoffset: 1, opacity: 0.7 },
      { strokeDashoffset: 0, opacity: 0.7, offset: 0.5 },
      { strokeDashoffset: 0, opacity: 0 },
    ], { duration: 2 * FLIGHT_MS, easing: "ease-in-out", fill: "both" });
    line.onfinish = line.oncancel = () => path.remove();
  }

  /** @param {number} key @param {Mark} mark */
  #end(key, { element }) {
    this.#marks.delete(key);
    const neighbour = element.nextElementSibling ?? element.previousElementSibling;
    if (document.activeElement === element) {
      const next = neighbour instanceof HTMLButtonElement ? neighbour : element.closest(".card");
      if (next instanceof HTMLElement) next.focus({ preventScroll: true });
    }
    element.disabled = true;
    const fade = element.animate([{ opacity: 1 }, { opacity: 0, scale: 0.4 }], {
      duration: isStill() ? 0 : FADE_MS,
      fill: "forwards",
    });
    fade.onfinish = fade.oncancel = () => {
      leaveHole(element);
      element.remove();
    };
  }
}

/**
 * A mark whose request moves again flies on from where it is seen. The rest of the flight before would be added
 * to its new place.
 * @param {HTMLElement} element
 */
function endFlight(element) {
  for (const animation of element.getAnimations()) animation.cancel();
  delete element.dataset.flying;
}

/**
 * Takes the holes out once they are as many as half of the marks.
 * @param {HTMLElement} box
 */
function closeRanks(box) {
  const holes = box.querySelectorAll(".hole");
  const all = /** @type {HTMLElement[]} */ ([...box.querySelectorAll("button.mark")]);
  if (holes.length < 4 || holes.length < all.length / 2) return;
  const from = all.map((element) => [element.offsetLeft, element.offsetTop]);
  for (const hole of holes) hole.remove();
  if (isStill()) return;
  for (const [i, element] of all.entries()) {
    const dx = from[i][0] - element.offsetLeft, dy = from[i][1] - element.offsetTop;
    if (dx === 0 && dy === 0) continue;
    element.animate([{ translate: `${dx}px ${dy}px` }, { translate: "0 0" }], {
      duration: SETTLE_MS,
      easing: "ease-in-out",
    });
  }
}

/**
 * Puts a mark into the first hole, so that the other marks stay where they are.
 * @param {HTMLElement} element
 * @param {HTMLElement} box
 */
function place(element, box) {
  const hole = box.querySelector(".hole");
  if (hole !== null) hole.replaceWith(element);
  else box.append(element);
}

/** Leaves an empty place behind for the next request; none at the end of the box. @param {HTMLElement} element */
function leaveHole(element) {
  const box = element.parentElement;
  if (box === null) return;
  const hole = make("i", "hole");
  element.replaceWith(hole);
  while (box.lastElementChild?.classList.contains("hole")) box.lastElementChild.remove();
}
