/** A service that may open few files. */
import { pause, until } from "../patience.ts";
import { startServer } from "./harness.ts";

const MAX_OPEN_FILES = 64;

/** Deno raises the soft limit to the hard one, and root may raise that too unless the right is taken away. */
const withoutRights = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"];
const launcher = [
  ...(Deno.uid() === 0 ? withoutRights : []),
  ...["/bin/sh", "-c", `ulimit -n ${MAX_OPEN_FILES}; exec "$0" "$@"`],
];

function hasSetpriv(): boolean {
  try {
    return new Deno.Command("setpriv", { args: ["--version"] }).outputSync().success;
  } catch {
    return false;
  }
}

const missing = Deno.build.os !== "linux"
  ? " (ignored: needs Linux)"
  : Deno.uid() === 0 && !hasSetpriv()
  ? " (ignored: root needs setpriv)"
  : "";

/** The status of /health over a connection of its own; null if there is no answer. */
async function health(port: number): Promise<number | null> {
  try {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    const request = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    await connection.write(new TextEncoder().encode(request));
    const chunk = new Uint8Array(64);
    const timeout = Promise.withResolvers<null>();
    const timer = setTimeout(() => timeout.resolve(null), 5_000);
    const n = await Promise.race([connection.read(chunk), timeout.promise]);
    clearTimeout(timer);
    return n === null ? null : Number(new TextDecoder().decode(chunk).slice(9, 12));
  } catch {
    return null;
  }
}

Deno.test({
  name: `with ${MAX_OPEN_FILES} file descriptors it recovers when connections close${missing}`,
  ignore: missing !== "",
  async fn() {
    await using server = await startServer([], { launcher });
    const port = Number(new URL(server.url).port);
    const opened = await Promise.allSettled(
      Array.from({ length: 300 }, () => Deno.connect({ hostname: "127.0.0.1", port })),
    );
    await pause(1_000);
    for (const result of opened) if (result.status === "fulfilled") result.value.close();
    const statuses: (number | null)[] = [];
    const isHealthy = async () => statuses[statuses.push(await health(port)) - 1] === 200;
    await until(isHealthy, () => `/health answers; so far: ${statuses}`, 200);
    await server.program.stopWell();
  },
});
