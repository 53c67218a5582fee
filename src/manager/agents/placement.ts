/** Which host gets the next instance. */

/** A host that could start instances. */
export interface HostRoom {
  readonly name: string;
  readonly slots: number;
  /** Instances that run there, or whose start is under way. */
  readonly instances: number;
  /** An instance ended there by itself a moment ago, or did not start. */
  readonly hasFailed: boolean;
  readonly memoryBytes: number;
}

/** Free slots of a host. */
export function freeSlots({ slots, instances }: Pick<HostRoom, "slots" | "instances">): number {
  return Math.max(0, slots - instances);
}

/**
 * The host for one more instance; null: none has a free slot. Replicas are spread: the host with the fewest
 * instances, among equals the one with the most free slots, then the most memory. A host where an instance
 * has just failed comes last, or it would be chosen again and again.
 * @param preferred a host that comes before others that have not failed
 */
export function chooseHost<Host extends HostRoom>(
  hosts: readonly Host[],
  preferred: Host | null = null,
): Host | null {
  const order = (a: Host, b: Host) =>
    Number(a.hasFailed) - Number(b.hasFailed) ||
    Number(b === preferred) - Number(a === preferred) ||
    a.instances - b.instances ||
    freeSlots(b) - freeSlots(a) ||
    b.memoryBytes - a.memoryBytes ||
    (a.name < b.name ? -1 : 1);
  return hosts.filter((host) => freeSlots(host) > 0).sort(order)[0] ?? null;
}

const MAX_LISTED_HOSTS = 8;

/**
 * Why no host can start an instance, for people: what each has.
 * @param absent names of hosts whose agents are away
 * @param drained names of hosts that an operator drains
 */
export function describeNoRoom(
  hosts: readonly HostRoom[],
  absent: readonly string[],
  drained: readonly string[],
): string {
  const all = [
    ...hosts.map(({ name, slots, instances }) => `${name} has ${instances} of ${slots}`),
    ...drained.map((name) => `${name} is drained`),
    ...absent.map((name) => `the agent of ${name} is away`),
  ];
  if (all.length === 0) {
    return "no host has room for an instance: no agent has joined. Start one on each host: llumnix agent";
  }
  const listed = all.slice(0, MAX_LISTED_HOSTS);
  if (all.length > listed.length) listed.push(`${all.length - listed.length} more`);
  return `no host has room for one more instance (${listed.join(", ")}). Add a host, or give one ` +
    "more --host-slots";
}
