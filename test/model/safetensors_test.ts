import assert from "node:assert/strict";
import { mapFile } from "../../ffi/libc.ts";
import { makeModel, parseMakeModelArgs } from "../../scripts/make_model.ts";
import { ModelError } from "../../src/core/errors.ts";
import { parseModelConfig } from "../../src/model/config.ts";
import { openByReading, type OpenFile, SafetensorsFile } from "../../src/model/safetensors.ts";
import { SafetensorsWeights } from "../../src/model/safetensors_weights.ts";
import { allTensors, decoderSpec } from "../../src/model/structure.ts";

const openMapped: OpenFile = (path) => mapFile(path) ?? openByReading(path);

function withDirectory(use: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync();
  try {
    use(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** A file of this header (text or JSON) and this much data, counting up from 0. */
function writeFile(path: string, header: unknown, dataBytes: number): void {
  const text = new TextEncoder().encode(
    typeof header === "string" ? header : JSON.stringify(header),
  );
  const length = new Uint8Array(new BigUint64Array([BigInt(text.length)]).buffer);
  const data = Uint8Array.from({ length: dataBytes }, (_, i) => i);
  Deno.writeFileSync(path, Uint8Array.of(...length, ...text, ...data));
}

/** The message with which a file of this header and data is refused. */
function refusal(header: unknown, dataBytes: number): string {
  let message = "";
  withDirectory((directory) => {
    const path = `${directory}/model.safetensors`;
    writeFile(path, header, dataBytes);
    for (const open of [openMapped, openByReading]) {
      try {
        new SafetensorsFile(path, open);
      } catch (error) {
        assert.ok(error instanceof ModelError, String(error));
        message = error.message.replaceAll(path, "FILE");
        continue;
      }
      assert.fail("it was accepted");
    }
  });
  return message;
}

const invalid = "FILE is not a valid safetensors file: ";
const advice = ". It is truncated or corrupt; download it again.";

Deno.test("safetensors: tensors are read, mapped or not, aligned or not", () => {
  withDirectory((directory) => {
    const path = `${directory}/model.safetensors`;
    const header = {
      __metadata__: { format: "pt" },
      a: { dtype: "F16", shape: [3], data_offsets: [0, 6] },
      b: { dtype: "F32", shape: [2, 1], data_offsets: [6, 14] },
      empty: { dtype: "BF16", shape: [0], data_offsets: [14, 14] },
    };
    for (const pad of ["", " ", "  "]) {
      writeFile(path, JSON.stringify(header) + pad, 14);
      for (const open of [openMapped, openByReading]) {
        const file = new SafetensorsFile(path, open);
        assert.deepEqual(file.names, ["a", "b", "empty"]);
        const a = file.read({ name: "a", shape: [3] });
        assert.deepEqual([a.dtype, Array.from(a.bytes)], ["float16", [0, 1, 2, 3, 4, 5]]);
        const b = file.read({ name: "b", shape: [2, 1] });
        assert.deepEqual([b.dtype, Array.from(b.bytes)], ["float32", [6, 7, 8, 9, 10, 11, 12, 13]]);
        new Float32Array(b.bytes.buffer, b.bytes.byteOffset, 2);
        assert.equal(file.read({ name: "empty", shape: [0] }).bytes.length, 0);
        file.close();
      }
    }
  });
});

Deno.test("safetensors: truncated and corrupt files are refused", () => {
  const f32 = (shape: number[], data_offsets: unknown) => ({ dtype: "F32", shape, data_offsets });
  withDirectory((directory) => {
    const path = `${directory}/short`;
    assert.throws(() => new SafetensorsFile(path, openMapped), {
      name: "ModelError",
      message: /^Cannot read .*: No such file/,
    });
    Deno.writeFileSync(path, Uint8Array.of(1, 2, 3));
    assert.throws(() => new SafetensorsFile(path, openMapped), {
      message: `${path} is not a valid safetensors file: 3 bytes are too few${advice}`,
    });
    Deno.writeFileSync(path, Uint8Array.of(100, 0, 0, 0, 0, 0, 0, 0, 123));
    assert.throws(() => new SafetensorsFile(path, openMapped), {
      message: `${path} is not a valid safetensors file: its header of 100 bytes exceeds the ` +
        `file of 9 bytes${advice}`,
    });
  });
  assert.match(refusal("{not json", 4), /its header is not JSON/);
  assert.match(refusal("\u0000\u0000", 4), /its header is not JSON/);
  assert.equal(refusal("[]", 4), `${invalid}its header is not a JSON object${advice}`);
  assert.equal(refusal({ w: null }, 4), `${invalid}tensor w has no valid dtype and shape${advice}`);
  assert.match(refusal({ w: f32([-1], [0, 4]) }, 4), /tensor w has no valid dtype and shape/);
  assert.match(refusal({ w: f32([1], [0]) }, 4), /tensor w has no valid data_offsets/);
  assert.equal(
    refusal({ w: f32([4], [0, 16]) }, 12),
    `${invalid}tensor w lies at bytes 0 to 16 of 12 bytes of data${advice}`,
  );
  assert.match(refusal({ w: f32([1], [8, 4]) }, 12), /tensor w lies at bytes 8 to 4 of 12/);
  assert.equal(
    refusal({ w: f32([4], [0, 12]) }, 12),
    `${invalid}tensor w, F32 [4], needs 16 bytes and has 12${advice}`,
  );
  assert.equal(
    refusal({ v: f32([2], [0, 8]), w: f32([2], [4, 12]) }, 12),
    `${invalid}tensors v and w overlap${advice}`,
  );
});

Deno.test("safetensors: a tensor missing, of a wrong shape or of an unsupported type", () => {
  withDirectory((directory) => {
    const path = `${directory}/model.safetensors`;
    writeFile(path, { w: { dtype: "I64", shape: [2, 1], data_offsets: [0, 16] } }, 16);
    const weights = new SafetensorsWeights(directory, openMapped);
    assert.throws(() => weights.read({ name: "model.norm.weight", shape: [64] }), {
      name: "ModelError",
      message: `Tensor model.norm.weight [64] is missing in ${directory}. The weights and ` +
        `config.json are not of the same model, or the download is incomplete.`,
    });
    assert.throws(() => weights.check({ name: "w", shape: [1, 2] }), {
      name: "ModelError",
      message: `Tensor w in ${path} has shape [2, 1]; config.json implies [1, 2]. The weights ` +
        `and config.json are not of the same model.`,
    });
    assert.throws(() => weights.check({ name: "w", shape: [2, 1] }), {
      name: "ModelError",
      message: `Tensor w in ${path} has type I64. Supported: F32, F16, BF16.`,
    });
    weights.close();
  });
});

Deno.test("safetensors: shards hold what one file holds", () => {
  withDirectory((directory) => {
    const make = (out: string, ...args: string[]) =>
      makeModel(parseMakeModelArgs(["--out", `${directory}/${out}`, "--seed", "3", ...args]));
    make("single");
    make("sharded", "--shards", "3");
    const single = new SafetensorsWeights(`${directory}/single`, openMapped);
    const sharded = new SafetensorsWeights(`${directory}/sharded`, openByReading);
    assert.equal(single.description, "1 safetensors file");
    assert.equal(sharded.description, "3 safetensors files");
    const path = `${directory}/single/config.json`;
    const config = parseModelConfig(JSON.parse(Deno.readTextFileSync(path)), path);
    for (const spec of allTensors(decoderSpec(config))) {
      assert.deepEqual(sharded.read(spec), single.read(spec));
    }
    single.close();
    sharded.close();
    Deno.removeSync(`${directory}/sharded/model-00002-of-00003.safetensors`);
    assert.throws(() => new SafetensorsWeights(`${directory}/sharded`, openMapped), {
      name: "ModelError",
      message: `${directory}/sharded/model.safetensors.index.json lists ` +
        `model-00002-of-00003.safetensors, which is missing. The download is incomplete; fetch ` +
        `it again.`,
    });
  });
});

Deno.test("safetensors: one file comes before shards, as in transformers", () => {
  withDirectory((directory) => {
    makeModel(parseMakeModelArgs(["--out", directory]));
    Deno.writeTextFileSync(`${directory}/model.safetensors.index.json`, "of another download");
    const weights = new SafetensorsWeights(directory, openMapped);
    assert.equal(weights.description, "1 safetensors file");
    weights.close();
    makeModel(parseMakeModelArgs(["--out", directory, "--shards", "2"]));
    const remade = new SafetensorsWeights(directory, openMapped);
    assert.equal(remade.description, "2 safetensors files");
    remade.close();
  });
});

Deno.test("safetensors: an index that is broken or leaves its directory is refused", () => {
  withDirectory((directory) => {
    const path = `${directory}/model.safetensors.index.json`;
    const open = () => new SafetensorsWeights(directory, openMapped);
    Deno.writeTextFileSync(path, "{");
    assert.throws(open, { name: "ModelError", message: /index.json is not JSON/ });
    for (const map of [undefined, null, { w: 5 }, { w: "../other/file" }]) {
      Deno.writeTextFileSync(path, JSON.stringify({ weight_map: map }));
      assert.throws(open, { name: "ModelError", message: /has no valid "weight_map"/ });
    }
  });
});

Deno.test("safetensors: no weights, or only pickled ones", () => {
  withDirectory((directory) => {
    assert.throws(() => new SafetensorsWeights(directory, openMapped), {
      name: "ModelError",
      message: `${directory} has no weights: expected model.safetensors, or ` +
        `model.safetensors.index.json and its shards. To try a config without weights use ` +
        `--load-format dummy.`,
    });
    Deno.writeTextFileSync(`${directory}/pytorch_model.bin`, "");
    assert.throws(() => new SafetensorsWeights(directory, openMapped), {
      name: "ModelError",
      message: `${directory} has its weights only in PyTorch's pickle format ` +
        `(pytorch_model.bin), which can run code when it is read and is not supported. Convert ` +
        `them to safetensors: load the model with transformers and call ` +
        `save_pretrained(directory, safe_serialization=True).`,
    });
  });
});
