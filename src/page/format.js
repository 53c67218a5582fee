/** Numbers and names as people read them. */

/** @param {number} ms @returns {[number: string, unit: string]} */
export function durationParts(ms) {
  if (ms > 0 && ms < 0.05) return ["< 0.1", "ms"];
  if (ms < 9.95) return [ms.toFixed(1), "ms"];
  if (ms < 999.5) return [ms.toFixed(0), "ms"];
  if (ms < 59_950) return [(ms / 1000).toFixed(ms < 9_950 ? 2 : 1), "s"];
  const seconds = Math.round(ms / 1000);
  return [`${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`, "min"];
}

/** @param {number} ms */
export function duration(ms) {
  return durationParts(ms).join("\u00a0");
}

/** "10.0 s" as "10 s", for an axis. @param {string} text */
export function withoutZeros(text) {
  return text.replace(/(\d)\.0+(?!\d)/, "$1").replace(/(\.\d*?[1-9])0+(?!\d)/, "$1");
}

/** @param {number} count */
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0, value = count;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.5 ? value.toFixed(0) : value.toPrecision(2)}\u00a0${
    units[unit]
  }`;
}

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** @param {number} count */
export function integer(count) {
  return grouped.format(count);
}

/** 950, 1.2k, 34k. @param {number} count */
export function rate(count) {
  if (count > 0 && count < 9.95) return count.toFixed(1);
  if (count < 9_999.5) return integer(count);
  return `${(count / 1000).toFixed(count < 99_950 ? 1 : 0)}k`;
}

/** @param {number} count @param {string} noun */
export function counted(count, noun) {
  return `${integer(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** A dispatch load. @param {number | "inf" | "-inf" | null} load */
export function loadText(load) {
  if (load === null) return "load –";
  if (load === "inf") return "load ∞";
  if (load === "-inf") return "idle";
  const digits = Math.abs(load) < 10 ? 2 : Math.abs(load) < 100 ? 1 : 0;
  return `load ${load.toFixed(digits).replace("-", "−")}`;
}

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** 14:03:59, in the reader's time zone. @param {number} ms */
export function timeOfDay(ms) {
  return clock.format(ms);
}

/** Request ids are long; their ends tell them apart. @param {string} id */
export function shortId(id) {
  return id.length <= 22 ? id : `${id.slice(0, 9)}…${id.slice(-12)}`;
}
