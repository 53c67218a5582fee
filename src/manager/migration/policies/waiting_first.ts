import type { RequestId } from "../../../core/protocol/generate.ts";
import type { MigrationAim } from "../../../core/protocol/migration.ts";
import { defragConstrained } from "./defrag_constrained.ts";
import type {
  LoadedCandidate,
  MigrationPair,
  PairContext,
  PairMigrationPolicy,
  WaitingCandidate,
} from "../policy.ts";
import { isAbout } from "./near.ts";
import { availableBlocks, headBlocks, isShort, isStuck } from "./room.ts";

/** A request that has waited this long for blocks comes before requests that may be preempted. */
const OVERDUE_MS = 120_000;

/**
 * Like defrag_constrained, but two kinds of instances come before it:
 *
 * 1. An instance that is short of blocks gives its smallest running request, rather than preempt one.
 * 2. An instance is stuck if the head of its queue does not fit. Its waiting requests are helped, the
 *    oldest first: a request moves to where it fits and would be the first in the queue. If none of an
 *    instance's requests fits elsewhere, one running request moves away whose blocks are enough for the
 *    head. For the oldest head for which no single request is enough, several move one after the other.
 *
 * The source must choose the request by the room of its destination and the aim of the order
 * (`--request-migration-policy FIT`).
 */
export const waitingFirst: PairMigrationPolicy = { ...defragConstrained, pairBeforeLoad };

function pairBeforeLoad(
  candidates: readonly LoadedCandidate[],
  { roomOf }: PairContext,
): MigrationPair[] {
  const stuck = candidates.filter(({ state }) => isStuck(state) && !state.isDraining)
    .sort((a, b) => headArrivalMs(a) - headArrivalMs(b));
  const short = candidates.filter(({ state }) => isShort(state) && !state.isDraining)
    .sort(byAvailable);
  if (stuck.length === 0 && short.length === 0) return []; // the usual case
  const rooms = new Map(candidates.map((candidate) => [candidate, roomOf(candidate.state)]));
  const pairs: MigrationPair[] = [];
  const free = new Set(candidates);
  /** The free instances that may take requests, and have room. */
  const takers = new Set(candidates.filter((one) => mayTake(one) && rooms.get(one)! > 0));
  const oldest = stuck.at(0);

  /** @returns whether there is a destination */
  const pair = (
    source: LoadedCandidate,
    destination: LoadedCandidate | null,
    aim: MigrationAim,
    requestId?: RequestId,
  ): boolean => {
    if (destination === null) return false;
    for (const one of [source, destination]) {
      free.delete(one);
      takers.delete(one);
    }
    pairs.push({ source: source.instanceId, destination: destination.instanceId, aim, requestId });
    return true;
  };
  /** A destination on the source's host in place of the best one, if it has about as much room. */
  const nearest = (
    source: LoadedCandidate,
    best: LoadedCandidate | null,
    suits: (destination: LoadedCandidate) => boolean,
  ) => {
    if (best === null || source.hostName === null || best.hostName === source.hostName) return best;
    for (const one of takers) {
      if (one === source || one.hostName !== source.hostName || !suits(one)) continue;
      if (isAbout(rooms.get(one)!, rooms.get(best)!)) return one;
    }
    return best;
  };
  /** The destination with the least sufficient room, so that large rooms stay large. */
  const bestFit = (
    source: LoadedCandidate,
    blocks: number,
    suits: (destination: LoadedCandidate) => boolean,
  ) => {
    let best: LoadedCandidate | null = null;
    for (const one of takers) {
      const room = rooms.get(one)!;
      if (room < blocks || one === source || !suits(one)) continue;
      if (best === null || room < rooms.get(best)!) best = one;
    }
    return nearest(source, best, (one) => rooms.get(one)! >= blocks && suits(one));
  };
  /** The destination with the most room, if the smallest running request of the source fits there. */
  const roomiest = (
    source: LoadedCandidate,
    suits: (one: LoadedCandidate) => boolean = () => true,
  ) => {
    let best: LoadedCandidate | null = null;
    for (const one of takers) {
      if (one === source || !suits(one)) continue;
      if (best === null || rooms.get(one)! > rooms.get(best)!) best = one;
    }
    const least = leastRunning(source);
    if (best === null || rooms.get(best)! < least) return null;
    return nearest(source, best, (one) => rooms.get(one)! >= least && suits(one));
  };
  /** Pairs for a waiting request: with an instance where it would be the first in the queue. */
  const pairWaiting = (source: LoadedCandidate, request: WaitingCandidate) => {
    const blocks = Math.ceil(request.blocks);
    const destination = bestFit(source, blocks, hasNoQueue) ??
      bestFit(source, blocks, (one) => isYoungerStuck(one, request));
    return pair(source, destination, "waiting", request.requestId);
  };
  /** A running request may also move to a stuck instance, if the requests that wait there are younger. */
  const whereRoomIsMade = (source: LoadedCandidate) => {
    const blocks = leastToMove(source);
    if (blocks === null) return null;
    return bestFit(
      source,
      blocks,
      (one) => !isStuck(one.state) || isYoungerStuck(one, source.waiting[0]),
    );
  };

  if (oldest && oldest.firstWaitingMs >= OVERDUE_MS) {
    if (!pairWaiting(oldest, oldest.waiting[0])) {
      pair(oldest, whereRoomIsMade(oldest) ?? roomiest(oldest), "room");
    }
  }
  for (const source of short) {
    if (!free.has(source)) continue;
    const destination = bestFit(source, leastRunning(source), ({ state }) => !isStuck(state)) ??
      roomiest(source, (one) => one !== oldest);
    pair(source, destination, "shortest");
  }
  // Every round looks through long queues, and usually no request fits anywhere.
  const mostRoom = [...takers].reduce((most, one) => Math.max(most, rooms.get(one)!), 0);
  const waiting = stuck.flatMap((source) =>
    source.waiting.filter(({ blocks }) => blocks <= mostRoom)
      .map((request) => ({ source, request }))
  ).sort((a, b) => a.request.arrivalMs - b.request.arrivalMs);
  for (const { source, request } of waiting) {
    if (free.has(source)) pairWaiting(source, request);
  }
  for (const source of stuck) {
    if (free.has(source)) pair(source, whereRoomIsMade(source), "room");
  }
  const first = stuck.find((source) => free.has(source));
  if (first) pair(first, roomiest(first), "room");
  return pairs;
}

/** Whether an instance may take requests. */
function mayTake({ killedRequests, state, isHostDrained }: LoadedCandidate): boolean {
  return killedRequests === 0 && !state.isDraining && !isHostDrained;
}

/** Whether an instance is stuck, and all requests that wait there came later than `request`. */
function isYoungerStuck(one: LoadedCandidate, { arrivalMs }: WaitingCandidate): boolean {
  return isStuck(one.state) && one.waiting.every((other) => other.arrivalMs > arrivalMs);
}

/** Arrival time of the request at the head of a stuck instance's queue. */
function headArrivalMs({ waiting }: LoadedCandidate): number {
  return waiting[0].arrivalMs;
}

function hasNoQueue({ state }: LoadedCandidate): boolean {
  return state.waitingRequests === 0;
}

/** Blocks of the smallest running request that makes enough room for the head; null: none does. */
function leastToMove(source: LoadedCandidate): number | null {
  const missing = headBlocks(source.state) - availableBlocks(source.state);
  const enough = runningBlocks(source).filter((blocks) => blocks >= missing);
  return enough.length === 0 ? null : Math.min(...enough);
}

function byAvailable(a: LoadedCandidate, b: LoadedCandidate): number {
  return availableBlocks(a.state) - availableBlocks(b.state);
}

function leastRunning(source: LoadedCandidate): number {
  return Math.min(...runningBlocks(source));
}

function runningBlocks({ runningSequenceLengths, blockSize }: LoadedCandidate): number[] {
  return runningSequenceLengths.map((tokens) => Math.ceil(tokens / blockSize));
}
