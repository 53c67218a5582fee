import assert from "node:assert/strict";
import { InstanceRecordFile } from "../../../src/roles/agent/instance_records.ts";
import { withDirectory } from "../../temporary_directory.ts";

const records = [{ instanceId: "instance-0", pid: 7, processStart: "boot:ns:1" }];

Deno.test("records: the next agent of the host finds them; an orderly stop leaves nothing", () =>
  withDirectory(async (directory) => {
    {
      using first = await InstanceRecordFile.open("a", directory);
      assert.deepEqual(first.read(), []);
      first.write(records);
    }
    {
      using second = await InstanceRecordFile.open("a", directory);
      assert.deepEqual(second.read(), records);
      second.clear();
    }
    assert.deepEqual([...Deno.readDirSync(directory)], []);
  }));

Deno.test("records: one agent of a host at a time", () =>
  withDirectory(async (directory) => {
    using _first = await InstanceRecordFile.open("a", directory);
    await assert.rejects(
      InstanceRecordFile.open("a", directory),
      /an agent for the host "a" runs already on this machine/,
    );
    using _other = await InstanceRecordFile.open("b", directory);
  }));

Deno.test("records: what is no record is left out", () =>
  withDirectory(async (directory) => {
    using file = await InstanceRecordFile.open("a", directory);
    for (
      const text of [
        "",
        "{",
        "{}",
        "[1, null]",
        '[{"instanceId": "i", "pid": -1}]',
        "[".repeat(1e5),
      ]
    ) {
      Deno.writeTextFileSync(`${directory}/agent-a.json`, text);
      assert.deepEqual(file.read(), [], text.slice(0, 40));
    }
  }));
