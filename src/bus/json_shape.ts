import { MessageError } from "../core/errors.ts";

/**
 * JSON takes up to twenty times its length once it is parsed, most of it for lists and objects. Frames
 * are small as a rule; of a large one the lists and objects are counted before it is parsed.
 */

/** Smaller JSON needs no check: it cannot take more than about 100 MB. */
export const MAX_UNCHECKED_JSON_BYTES = 1 << 20;
/** Deeper than any message. */
const MAX_DEPTH = 64;
/** Log probabilities of 100,000 tokens with 20 alternatives each have 2.2 million. */
const MAX_CONTAINERS = 4 << 20;

const QUOTE = 0x22, BACKSLASH = 0x5c;
const OPEN_LIST = 0x5b, CLOSE_LIST = 0x5d, OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d;

/** @throws {MessageError} JSON text nests too deeply, or has too many lists and objects */
export function checkJsonShape(json: Uint8Array): void {
  let depth = 0, containers = 0, isInString = false;
  for (let i = 0; i < json.length; i++) {
    const byte = json[i];
    if (isInString) {
      if (byte === BACKSLASH) i++;
      else if (byte === QUOTE) isInString = false;
    } else if (byte === QUOTE) {
      isInString = true;
    } else if (byte === OPEN_LIST || byte === OPEN_OBJECT) {
      containers++;
      if (++depth > MAX_DEPTH) {
        throw new MessageError(`a frame nests deeper than ${MAX_DEPTH} levels`);
      }
      if (containers > MAX_CONTAINERS) {
        throw new MessageError(`a frame has more than ${MAX_CONTAINERS} lists and objects`);
      }
    } else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) {
      depth--;
    }
  }
}
