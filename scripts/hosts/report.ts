/** The outcome of a run on several hosts, as Markdown. */
import { NOISE, NONE_MS, type Result } from "./run.ts";
import { INSTANCE_TIMEOUT_S } from "./service.ts";

/** A scenario that could not run here, and why. */
export interface Skipped {
  readonly name: string;
  readonly reason: string;
}

export interface Report {
  /** What was built. */
  readonly commit: string;
  readonly results: readonly Result[];
  readonly skipped: readonly Skipped[];
  /** Scenarios that ended with an error, such as that the service did not start. */
  readonly broken: readonly Skipped[];
}

export function reportOf({ commit, results, skipped, broken }: Report): string {
  const failed = results.filter(({ problems }) => problems.length > 0);
  const numFailed = failed.length + broken.length;
  const verdict = numFailed === 0 ? "all holds" : `${numFailed} do not hold`;
  const rows = results.map((result) => `| ${cellsOf(result).join(" | ")} |`);
  const sum = (of: (one: Result) => number) => results.reduce((all, one) => all + of(one), 0);
  return `# The last run of \`deno task hosts\`

${new Date().toISOString().slice(0, 10)}, commit ${commit}, ${navigator.hardwareConcurrency} cores.
${results.length} scenarios, ${skipped.length} skipped: **${verdict}**. Load average of the machine during the
run: ${loadOf(results)}; above the number of cores, processes wait for one, and pauses grow.

Three hosts are network namespaces of one machine. Each has a manager, an API server and an instance of the
built executable. One etcd or nats-server is on a fourth host, or one on each of the three. Every API server
has two streams at a time, a small request every 20 ms, and a read of \`/admin/instances\`, which only a leader
answers, every 50 ms. Instances are simulated GPUs (\`--device sim\`), since two cores are too few for three
real ones; \`--instance-timeout ${INSTANCE_TIMEOUT_S}\`; all else is as by default. etcd has a heartbeat of
50 ms and an election timeout of 500 ms.

- ${sum(({ outcome }) => outcome.equal)} streams and ${
    sum(({ outcome }) => outcome.answered)
  } small requests ended. ${
    sum(({ outcome }) => outcome.different)
  } streams differed from those of a quiet
  run, ${sum(({ outcome }) => outcome.lost)} requests were lost.

| scenario | store | goal | dispatches | leader's answers | quiet | streams | new epochs | streams equal | lost | holds |
| - | - | -: | -: | -: | -: | -: | -: | -: | -: | - |
${rows.join("\n")}

- **Dispatches**: longest time, from the fault on, in which no small request was answered. **Leader's
  answers**: the same for reads of a leader. Both are the worst of the API servers that can reach the new
  leader. An API server without a manager dispatches by itself.
- **Quiet**: the longest pause of both in the seconds before the fault. A goal of "none" holds up to
  ${NONE_MS} ms, or ${NOISE} times that pause: a busy machine makes such pauses by itself.
- **Streams**: the longest pause of a stream, one whose instance was lost among them: it goes on elsewhere once
  its API server knows of the loss.
- **Holds**: neither of the first two is over the goal, every stream is that of the quiet run, no request was lost, no instance was in the lists of two
  managers before a cut was healed or in the end, one manager leads in the end, and no instance has a request
  left. Where no host was lost or cut, instances computed exactly the tokens that clients got: no request ran
  twice.
${problemsOf(failed)}${listOf("Broken off", broken)}${listOf("Skipped", skipped)}`;
}

function cellsOf(result: Result): string[] {
  const { scenario, outcome, problems } = result;
  const { name, store, servers, goalMs } = scenario;
  return [
    name,
    servers.length > 1 ? `${store}, 3 servers` : store,
    goalMs === null ? "" : goalMs === 0 ? "none" : `${seconds(goalMs)} s`,
    `${seconds(result.dispatchPauseMs)} s`,
    `${seconds(result.leaderPauseMs)} s`,
    `${seconds(result.quietPauseMs)} s`,
    `${seconds(result.streamPauseMs)} s`,
    `${result.newEpochs}`,
    `${outcome.equal} of ${outcome.equal + outcome.different}`,
    `${outcome.lost}`,
    problems.length === 0 ? "yes" : "NO",
  ];
}

function problemsOf(failed: readonly Result[]): string {
  if (failed.length === 0) return "";
  const lines = failed.map(({ scenario: { name, store }, problems }) =>
    `- ${name} (${store}): ${problems.join("; ")}`
  );
  return `\n## What does not hold\n\n${lines.join("\n")}\n`;
}

function listOf(title: string, list: readonly Skipped[]): string {
  const lines = list.map(({ name, reason }) => `- ${name}: ${reason}`);
  return list.length === 0 ? "" : `\n## ${title}\n\n${lines.join("\n")}\n`;
}

function loadOf(results: readonly Result[]): string {
  const loads = results.map(({ loadAverage }) => loadAverage);
  return results.length === 0
    ? "not known"
    : `${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}`;
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(2);
}
