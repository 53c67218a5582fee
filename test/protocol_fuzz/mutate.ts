/** What a peer may send in place of what it should. Everything follows from the random numbers. */
import type { Random } from "../../src/core/random.ts";

/** A value that JSON can carry, and a message does not expect. */
function oddValue(random: Random): unknown {
  const values: (() => unknown)[] = [
    () => null,
    () => true,
    () => 0,
    () => -1,
    () => 0.5,
    () => 2 ** 53,
    () => 1e308,
    () => "",
    () => "x",
    () => "__proto__",
    () => "é\u0000\u2028".repeat(500),
    () => "x".repeat(70_000),
    () => [],
    () => [null],
    () => ({}),
    () => JSON.parse('{"__proto__":{"a":1},"constructor":0,"toString":1,"length":-1}'),
    () => Array.from({ length: 3_000 }, (_, i) => i),
    () => nested(100),
    () => nested(5_000),
  ];
  return values[random.below(values.length)]();
}

function nested(depth: number): unknown {
  let value: unknown = 0;
  for (let i = 0; i < depth; i++) value = [value];
  return value;
}

interface Place {
  readonly holder: Record<string | number, unknown>;
  readonly key: string | number;
}

/** Every place in the data that holds a value. */
function placesIn(data: unknown, places: Place[] = []): Place[] {
  if (typeof data !== "object" || data === null || places.length > 2_000) return places;
  const holder = data as Record<string | number, unknown>;
  for (const key of Object.keys(holder)) {
    places.push({ holder, key });
    placesIn(holder[key], places);
  }
  return places;
}

/** Changes one value somewhere inside, or takes it away, or has it twice. */
export function mutateData(data: unknown, random: Random): unknown {
  const root = { data: structuredClone(data) };
  const places = placesIn(root);
  const { holder, key } = places[random.below(places.length)];
  switch (random.below(5)) {
    case 0:
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else delete holder[key];
      break;
    case 1:
      holder[key] = [holder[key], holder[key]];
      break;
    case 2: {
      const other = places[random.below(places.length)];
      holder[key] = structuredClone(other.holder[other.key] ?? null);
      break;
    }
    default:
      holder[key] = oddValue(random);
  }
  return root.data ?? null;
}

/** Changes bytes of what is sent: some flipped, cut out, put in, or the rest left off. */
export function mutateBytes(
  bytes: Uint8Array<ArrayBuffer>,
  random: Random,
): Uint8Array<ArrayBuffer> {
  const at = random.below(bytes.length + 1);
  switch (random.below(5)) {
    case 0:
      return bytes.slice(0, at);
    case 1:
      return concat(
        bytes.subarray(0, at),
        bytes.subarray(Math.min(bytes.length, at + 1 + random.below(8))),
      );
    case 2:
      return concat(
        bytes.subarray(0, at),
        randomBytes(1 + random.below(64), random),
        bytes.subarray(at),
      );
    case 3: {
      // The lengths at the beginning.
      const changed = bytes.slice();
      changed[random.below(Math.min(8, changed.length))] = random.below(256);
      return changed;
    }
    default: {
      const changed = bytes.slice();
      for (let i = 1 + random.below(4); i > 0 && changed.length > 0; i--) {
        changed[random.below(changed.length)] ^= 1 << random.below(8);
      }
      return changed;
    }
  }
}

export function randomBytes(count: number, random: Random): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: count }, () => random.below(256));
}

export function concat(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
