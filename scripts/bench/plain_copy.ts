/**
 * A plain TCP copy between two processes, as fast as Deno does it: the yardstick for transfers of
 * blocks.
 */
const CHUNK_BYTES = 1 << 20;

/** Copies `bytes` bytes to another process. Returns GB/s. */
export async function plainCopy(bytes: number): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", import.meta.filename!, String(bytes)],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  const port = Number(new TextDecoder().decode(value));
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const chunk = new Uint8Array(CHUNK_BYTES).fill(1);
  const startedMs = performance.now();
  for (let sent = 0; sent < bytes;) {
    sent += await connection.write(chunk.subarray(0, Math.min(CHUNK_BYTES, bytes - sent)));
  }
  await connection.read(new Uint8Array(1)); // the other process has received everything
  const tookMs = performance.now() - startedMs;
  connection.close();
  await reader.cancel();
  await child.status;
  return bytes / tookMs / 1e6;
}

/** The other process. */
async function receive(bytes: number): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  console.log(listener.addr.port);
  const connection = await listener.accept();
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let received = 0; received < bytes;) received += (await connection.read(chunk))!;
  await connection.write(new Uint8Array(1));
  connection.close();
  listener.close();
}

if (import.meta.main) await receive(Number(Deno.args[0]));
