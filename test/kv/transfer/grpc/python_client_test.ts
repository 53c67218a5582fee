/**
 * A Connect client of another language, generated of migration.proto. `LLUMNIX_TEST_CONNECT_PYTHON` names a
 * Python with `connect-python`, `protoc-gen-connect-python` and `grpcio-tools`.
 */
import assert from "node:assert/strict";
import { dirname } from "node:path";
import { blockBytes } from "../../../../src/kv/layout.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";
import { contents } from "../../../conformance/kv_pool.ts";
import { form, openEnd } from "./support.ts";

const python = Deno.env.get("LLUMNIX_TEST_CONNECT_PYTHON");
const skipped = python === undefined
  ? " (skipped: LLUMNIX_TEST_CONNECT_PYTHON names no Python with connect-python)"
  : "";
const proto = new URL("../../../../src/kv/transfer/grpc/", import.meta.url).pathname;

async function run(...args: string[]): Promise<string> {
  const env = { PATH: `${dirname(python!)}:${Deno.env.get("PATH")}` };
  const { success, stdout, stderr } = await new Deno.Command(python!, { args, env }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

Deno.test({
  name: `grpc server: a client generated for Python calls all methods${skipped}`,
  ignore: python === undefined,
  async fn() {
    const directory = await Deno.makeTempDir();
    const end = openEnd("a");
    try {
      const outputs = ["--python_out", "--connect-python_out"].map((out) => `${out}=${directory}`);
      await run("-m", "grpc_tools.protoc", "-I", proto, ...outputs, "migration.proto");
      await form([end], "secret of the group");
      await end.backend.grant("m", [3]);
      const expected = await contents(end.pool);
      expected[3] = new Uint8Array(blockBytes(suiteLayout)).map((_, i) => i + 1);
      const { host, port } = end.backend.endpoint;
      const said = await run(
        ...[`${import.meta.dirname}/python_client.py`, directory, `http://${host}:${port}`],
        ...["secret of the group", "3", expected[3].toHex(), `${suiteLayout.numLayers}`],
      );
      assert.deepEqual(said.trim().split("\n"), [
        "a STATUS_SERVING",
        `written ${expected[3].length}`,
        `received ${expected[3].length}`,
        "unauthenticated the caller is not in this instance's migration group",
      ]);
      assert.deepEqual(await contents(end.pool), expected);
    } finally {
      await end.backend.close();
      await Deno.remove(directory, { recursive: true });
    }
  },
});
