import { defragConstrained } from "./defrag_constrained.ts";
import type {
  LoadedCandidate,
  MigrationPair,
  PairContext,
  PairMigrationPolicy,
} from "./pair_migration.ts";
import { availableBlocks, headBlocks, isStuck } from "./room.ts";

/**
 * Before instances give by their load, the requests that wait for blocks are helped, those first that
 * have waited longest: each goes where it fits; where it fits nowhere, the one request leaves that
 * makes the room for it; and for the first for which none does, room is made little by little. Needs
 * a source that chooses by the room of its destination (`--request-migration-policy FIT`).
 */
export const waitingFirst: PairMigrationPolicy = { ...defragConstrained, pairBeforeLoad };

function pairBeforeLoad(
  candidates: readonly LoadedCandidate[],
  { roomOf }: PairContext,
): MigrationPair[] {
  const rooms = new Map(candidates.map((candidate) => [candidate, roomOf(candidate.state)]));
  const pairs: MigrationPair[] = [];
  const free = new Set(candidates);
  let stuck = candidates.filter(({ state }) => isStuck(state) && !state.isDraining)
    .sort((a, b) => b.firstWaitingMs - a.firstWaitingMs);

  /** Pairs those stuck ones for which there is a destination; the others remain. */
  const pairAll = (destinationOf: (source: LoadedCandidate) => LoadedCandidate | null) => {
    stuck = stuck.filter((source) => {
      if (!free.has(source)) return false;
      const destination = destinationOf(source);
      if (destination === null) return true;
      for (const one of [source, destination]) free.delete(one);
      pairs.push({ source: source.instanceId, destination: destination.instanceId });
      return false;
    });
  };
  /** The destination with the least room that is enough, so that large rooms stay large. */
  const bestFit = (
    source: LoadedCandidate,
    blocks: number,
    suits: (destination: LoadedCandidate) => boolean,
  ) => {
    let best: LoadedCandidate | null = null;
    for (const one of free) {
      const room = rooms.get(one)!;
      if (one === source || one.killedRequests > 0 || one.state.isDraining) continue;
      if (room < blocks || !suits(one)) continue;
      if (best === null || room < rooms.get(best)!) best = one;
    }
    return best;
  };

  pairAll((source) => bestFit(source, headBlocks(source.state), hasNoQueue));
  pairAll((source) => {
    const blocks = leastToMove(source);
    if (blocks === null) return null;
    // What runs may also go where a younger request waits in vain.
    const suits = (one: LoadedCandidate) =>
      !isStuck(one.state) || one.firstWaitingMs < source.firstWaitingMs;
    return bestFit(source, blocks, suits);
  });
  let isFirst = true;
  pairAll((source) => {
    if (!isFirst) return null;
    isFirst = false;
    return roomiest(source, free, rooms);
  });
  return pairs;
}

function hasNoQueue({ state }: LoadedCandidate): boolean {
  return state.waitingRequests === 0;
}

/** Blocks of the smallest running request without which the head of the queue fits; null for none. */
function leastToMove(source: LoadedCandidate): number | null {
  const missing = headBlocks(source.state) - availableBlocks(source.state);
  const enough = runningBlocks(source).filter((blocks) => blocks >= missing);
  return enough.length === 0 ? null : Math.min(...enough);
}

/** The destination with the most room, if that is enough for the smallest running request. */
function roomiest(
  source: LoadedCandidate,
  free: ReadonlySet<LoadedCandidate>,
  rooms: ReadonlyMap<LoadedCandidate, number>,
): LoadedCandidate | null {
  let best: LoadedCandidate | null = null;
  for (const one of free) {
    if (one === source || one.killedRequests > 0 || one.state.isDraining) continue;
    if (best === null || rooms.get(one)! > rooms.get(best)!) best = one;
  }
  return best !== null && rooms.get(best)! >= Math.min(...runningBlocks(source)) ? best : null;
}

function runningBlocks({ runningSequenceLengths, blockSize }: LoadedCandidate): number[] {
  return runningSequenceLengths.map((tokens) => Math.ceil(tokens / blockSize));
}
