/** The page at `/`: follows the feed, and hands what it says to the views. */
import { askFor, bearer, errorOf } from "./access.js";
import { Chat } from "./chat.js";
import { $, make, setData, setText } from "./dom.js";
import { followFeed } from "./feed.js";
import { counted, duration, durationParts, integer, rate, timeOfDay } from "./format.js";
import { Hosts } from "./hosts.js";
import { Instances } from "./instances.js";
import { Marks } from "./marks.js";
import { Model } from "./model.js";
import { Operator } from "./operate.js";
import { Plots } from "./plots.js";
import { watchMarks } from "./pointing.js";

/** @import { FeedTick } from "../server/feed/records.ts" */

const model = new Model();
const operator = new Operator(showAccess);
const instances = new Instances((action, id) => operator.change(action, id));
const hosts = new Hosts((action, host) => operator.changeHost(action, host));
const marks = new Marks(
  instances.marksOf,
  /** @type {SVGElement} */ (/** @type {unknown} */ ($("flights"))),
);
const chat = new Chat(model, marks);
const plots = new Plots();
const refreshPointing = watchMarks(model, marks, instances, operator);
let newestEvent = -1;
let newestPoint = 0;

$("operate").onclick = () => operator.toggle();
$("add").onclick = () => operator.add();
showAccess();

followFeed({
  onState: (state) => {
    model.take(state);
    newestEvent = -1;
    $("events").replaceChildren();
    setText($("model"), state.model);
    setText($("version"), state.version);
    show(null);
    showAccess();
  },
  onTick: (tick) => {
    model.apply(tick);
    show(tick);
  },
  onLink: (state, words) => {
    setText($("link"), state === "live" && model.isManagerGone ? "Live, manager lost" : words);
    setData($("link"), "state", state === "live" && model.isManagerGone ? "wait" : state);
  },
  onLocked: async () => {
    while (!await askFor("key", checkKey));
  },
});

/** @param {FeedTick | null} tick */
function show(tick) {
  instances.show(model);
  hosts.show(model.hosts, model.leadership);
  marks.show(model.requests);
  instances.updateTabStops();
  $("unplaced").hidden = $("unplaced-marks").childElementCount === 0;
  setText($("unlisted"), `${counted(model.unlisted, "more request")} without a mark`);
  $("unlisted").hidden = model.unlisted === 0;
  chat.update(tick);
  showTiles();
  showEvents();
  const pointMs = model.points.at(-1)?.atMs ?? 0;
  if (pointMs !== newestPoint || tick === null) plots.show(model.points, model.nowMs);
  newestPoint = pointMs;
  refreshPointing();
}

function showTiles() {
  const { summary } = model;
  if (summary === null) return;
  const sum = (/** @type {"running" | "waiting" | "preempted"} */ name) =>
    model.instances.reduce((total, instance) => total + (instance[name] ?? 0), 0);
  setText($("tile-requests"), integer(sum("running")));
  setText($("tile-requests-detail"), `running, ${integer(sum("waiting"))} waiting`);
  setText($("tile-output"), rate(summary.outputTokensPerSecond));
  showLatency("ttft", summary.ttftMs);
  showLatency("tpot", summary.tpotMs);
  setText($("tile-moves"), integer(summary.migrations));
  setText(
    $("tile-moves-detail"),
    summary.worstDowntimeMs === null
      ? "last 5 minutes"
      : `worst downtime ${duration(summary.worstDowntimeMs)}`,
  );
  setText($("tile-preemptions"), integer(summary.preemptions));
  setText(
    $("tile-preemptions-detail"),
    summary.resumed > 0 ? `${counted(summary.resumed, "request")} resumed` : "last 5 minutes",
  );
}

/** @param {"ttft" | "tpot"} name @param {readonly [number, number] | null} percentiles */
function showLatency(name, percentiles) {
  const value = $(`tile-${name}`);
  if (percentiles === null) {
    setText(value, "–");
    setText($(`tile-${name}-detail`), "no request lately");
    return;
  }
  const [number, unit] = durationParts(percentiles[0]);
  if (value.textContent !== number + unit) value.replaceChildren(number, make("small", "", unit));
  setText($(`tile-${name}-detail`), `median; P99 ${duration(percentiles[1])}`);
}

function showEvents() {
  const box = $("events");
  const news = model.events.filter(({ seq }) => seq > newestEvent);
  if (news.length === 0) {
    if (box.childElementCount === 0) box.append(make("li", "empty", "Nothing yet."));
    return;
  }
  newestEvent = news[news.length - 1].seq;
  box.querySelector(".empty")?.remove();
  for (const { atMs, kind, text } of news) {
    const time = make("time", "", timeOfDay(atMs));
    time.dateTime = new Date(atMs).toISOString();
    const item = make("li", "", time, make("span", "", text));
    item.dataset.kind = kind;
    box.prepend(item);
  }
  while (box.childElementCount > 120) box.lastElementChild?.remove();
}

/** What an operator sees. */
function showAccess() {
  const isOperator = model.hasAdmin && operator.isUnlocked;
  $("operate").hidden = !model.hasAdmin;
  setText($("operate"), isOperator ? "Stop operating" : "Operate");
  $("add").hidden = !isOperator;
  document.body.classList.toggle("can-drag", isOperator);
  hosts.isOperator = isOperator;
  hosts.show(model.hosts, model.leadership);
  instances.isOperator = isOperator;
  instances.show(model);
}

/** @param {string} key @returns {Promise<string | null>} */
async function checkKey(key) {
  try {
    const response = await fetch("v1/models", { headers: bearer(key) });
    if (response.ok) return null;
    return response.status === 401
      ? "This is not an API key of this server."
      : await errorOf(response);
  } catch {
    return "The server cannot be reached.";
  }
}
