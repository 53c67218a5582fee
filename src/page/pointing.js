/** Marks by pointer and keyboard: the tip, the dialog, moving along with the arrow keys, dragging. */
import { $, make, setData, setText } from "./dom.js";
import { bytes, counted, duration, integer, shortId } from "./format.js";

/** @import { FeedInstance } from "../server/feed/records.ts" */
/** @import { Instances } from "./instances.js" */
/** @import { Marks } from "./marks.js" */
/** @import { Model, Request } from "./model.js" */
/** @import { Operator } from "./operate.js" */

/** The pointer has to go so far, in pixels, until a press becomes a drag. */
const DRAG_DISTANCE = 6;

/** @param {Request} request @param {number} nowMs @returns {[term: string, value: string][]} */
function factsOf(request, nowMs) {
  const state = request.instance === null
    ? "waiting for an instance"
    : request.isRunning
    ? "running"
    : "waiting";
  return [
    ["State", request.instance === null ? state : `${state} on ${request.instance}`],
    ["Priority", request.isHigh ? "high" : "normal"],
    ["Prompt", counted(request.promptTokens, "token")],
    [
      "Output",
      `${integer(request.outputTokens)} of at most ${counted(request.maxTokens, "token")}`,
    ],
    ["Age", duration(Math.max(0, nowMs - request.startedMs))],
    ...request.moves.map((move) => /** @type {[string, string]} */ (["Moved", moveText(move)])),
  ];
}

/** @param {import("../server/feed/records.ts").FeedMove} move */
export function moveText({ from, to, downtimeMs, bytes: size, tokens }) {
  return `${from} → ${to}: ${duration(downtimeMs)} downtime, ${bytes(size)}, ${
    counted(tokens, "token")
  }`;
}

/** Whether a request can move there. @param {Model} model @param {Request} request @param {FeedInstance} to */
function mayMove(model, request, to) {
  const from = model.instances.find(({ id }) => id === request.instance);
  return from !== undefined && from.id !== to.id && from.type === to.type && to.state === "serving";
}

/**
 * @param {Model} model @param {Marks} marks @param {Instances} instances @param {Operator} operator
 * @returns {() => void} call it after each change of the model
 */
export function watchMarks(model, marks, instances, operator) {
  const refreshTip = showTips(model, marks);
  const refreshDialog = openDialogs(model, marks, operator);
  useArrowKeys();
  useDrag(model, marks, instances, operator);
  return () => {
    refreshTip();
    refreshDialog();
  };
}

/** @param {Model} model @param {Marks} marks */
function showTips(model, marks) {
  const tip = $("tip");
  /** @type {{ element: Element, key: number } | null} */
  let shown = null;

  function refresh() {
    if (shown === null) return;
    const request = model.requests.get(shown.key);
    if (request === undefined || !shown.element.isConnected) return hide();
    const facts = factsOf(request, model.nowMs);
    const [state, , prompt, output, age, ...moves] = facts.map(([, value]) => value);
    tip.replaceChildren(
      make("b", "", shortId(request.id)),
      make("p", "", `${state}${request.isHigh ? ", high priority" : ""}, for ${age}`),
      make("p", "", `Output ${output}; prompt ${prompt}`),
      ...moves.map((move) => make("p", "moved", move)),
    );
    shown.element.setAttribute(
      "aria-label",
      `Request ${shortId(request.id)}: ${
        facts.map(([term, value]) => `${term} ${value}`).join(", ")
      }`,
    );
    tip.hidden = false;
    const at = shown.element.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left - 12), innerWidth - tip.offsetWidth - 8);
    const isBelow = at.bottom + tip.offsetHeight + 16 < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${isBelow ? at.bottom + 8 : at.top - tip.offsetHeight - 8}px`;
  }

  function hide() {
    shown = null;
    tip.hidden = true;
  }

  function enter(/** @type {Event} */ event) {
    const element = event.target instanceof Element ? event.target.closest("button.mark") : null;
    const request = marks.requestOf(element);
    if (element === null || request === null) return hide();
    shown = { element, key: request.key };
    refresh();
  }

  document.addEventListener("pointerover", enter);
  document.addEventListener("focusin", enter);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") hide();
  });
  return refresh;
}

/** @param {Model} model @param {Marks} marks @param {Operator} operator */
function openDialogs(model, marks, operator) {
  const dialog = /** @type {HTMLDialogElement} */ ($("request-dialog"));
  const choice = /** @type {HTMLSelectElement} */ ($("request-to"));
  const go = /** @type {HTMLButtonElement} */ ($("request-go"));
  /** @type {Request | null} */
  let open = null;

  function refresh() {
    if (open === null) return;
    const hasEnded = !model.requests.has(open.key);
    $("request-facts").replaceChildren(
      ...(hasEnded
        ? /** @type {[string, string][]} */ ([["State", "ended"]])
        : factsOf(open, model.nowMs))
        .flatMap(([term, value]) => [make("dt", "", term), make("dd", "", value)]),
    );
    const request = open;
    const places = hasEnded
      ? []
      : model.instances.filter((to) => mayMove(model, request, to)).map(({ id }) => id);
    const known = [...choice.options].map(({ value }) => value);
    if (places.join("\n") !== known.join("\n")) {
      const chosen = choice.value;
      choice.replaceChildren(...places.map((id) => {
        const option = make("option", "", id);
        option.value = id;
        return option;
      }));
      if (places.includes(chosen)) choice.value = chosen;
    }
    $("request-move").hidden = !operator.isUnlocked || places.length === 0;
    $("request-locked").hidden = operator.isUnlocked || !model.hasAdmin || hasEnded;
  }

  document.addEventListener("click", ({ target }) => {
    const request = marks.requestOf(target instanceof Element ? target : null);
    if (request === null) return;
    open = request;
    setText($("request-title"), shortId(request.id));
    refresh();
    $("tip").hidden = true;
    dialog.showModal();
  });
  go.onclick = () => {
    if (open !== null) operator.move(open.id, choice.value);
    dialog.close();
  };
  dialog.onclose = () => {
    const element = open === null ? null : marks.elementOf(open.key);
    open = null;
    element?.focus();
  };
  return refresh;
}

/** The arrow keys lead from mark to mark within a card, Home and End to its first and last. */
function useArrowKeys() {
  document.addEventListener("keydown", (event) => {
    const from = event.target;
    if (!(from instanceof HTMLButtonElement) || !from.classList.contains("mark")) return;
    const all = /** @type {HTMLButtonElement[]} */ ([
      ...(from.parentElement?.querySelectorAll("button.mark:not(:disabled)") ?? []),
    ]);
    const at = all.indexOf(from);
    const row = all.filter((one) => one.offsetTop === from.offsetTop).length || 1;
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: row,
      ArrowUp: -row,
      Home: -at,
      End: all.length - 1 - at,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const to = all[at + steps[/** @type {keyof typeof steps} */ (event.key)]];
    if (to === undefined) return;
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  });
}

/** @param {Model} model @param {Marks} marks @param {Instances} instances @param {Operator} operator */
function useDrag(model, marks, instances, operator) {
  /** @type {{ request: Request, element: HTMLElement, ghost: HTMLElement | null, x: number, y: number } | null} */
  let drag = null;
  let wasDragged = false;

  /** @param {Element | null} over */
  function highlight(over) {
    for (const { root, instance } of instances.cards) {
      if (drag?.ghost == null || instance === null) setData(root, "drop", null);
      else if (instance.id === drag.request.instance) setData(root, "drop", null);
      else if (!mayMove(model, drag.request, instance)) setData(root, "drop", "no");
      else setData(root, "drop", root.contains(over) ? "over" : "yes");
    }
  }

  function end() {
    if (drag === null) return;
    drag.ghost?.remove();
    setData(drag.element, "busy", null);
    drag = null;
    highlight(null);
  }

  document.addEventListener("pointerdown", (event) => {
    wasDragged = false;
    const element = event.target instanceof Element ? event.target.closest("button.mark") : null;
    const request = marks.requestOf(element);
    if (!operator.isUnlocked || event.button !== 0 || request === null) return;
    drag = {
      request,
      element: /** @type {HTMLElement} */ (element),
      ghost: null,
      x: event.clientX,
      y: event.clientY,
    };
  });
  document.addEventListener("pointermove", (event) => {
    if (drag === null) return;
    if (drag.ghost === null) {
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG_DISTANCE) return;
      const ghost = make("i", "mark ghost");
      Object.assign(ghost.dataset, drag.element.dataset);
      ghost.style.setProperty("--done", drag.element.style.getPropertyValue("--done"));
      document.body.append(ghost);
      drag.ghost = ghost;
      setData(drag.element, "busy", "1");
      $("tip").hidden = true;
    }
    drag.ghost.style.left = `${event.clientX - 7}px`;
    drag.ghost.style.top = `${event.clientY - 7}px`;
    highlight(document.elementFromPoint(event.clientX, event.clientY));
  });
  document.addEventListener("pointerup", (event) => {
    if (drag === null) return;
    wasDragged = drag.ghost !== null;
    const { request } = drag;
    const to = instances.instanceAt(document.elementFromPoint(event.clientX, event.clientY));
    end();
    if (wasDragged && to !== null && mayMove(model, request, to)) operator.move(request.id, to.id);
  });
  document.addEventListener("pointercancel", end);
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") end();
  });
  // A drag that ends over its own mark is no click.
  document.addEventListener("click", (event) => {
    if (wasDragged) event.stopImmediatePropagation();
    wasDragged = false;
  }, { capture: true });
}
