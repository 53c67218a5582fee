import assert from "node:assert/strict";
import { locateModel, modelIdentity } from "../../src/model/locate.ts";

/** A cache with one repository of two commits; `main` is the second. */
function withCache(use: (home: string, hub: string) => void): void {
  const home = Deno.makeTempDirSync();
  try {
    const hub = `${home}/.cache/huggingface/hub`;
    const repository = `${hub}/models--org--name`;
    for (const commit of ["aaa", "bbb"]) {
      Deno.mkdirSync(`${repository}/snapshots/${commit}`, { recursive: true });
    }
    Deno.mkdirSync(`${repository}/refs`);
    Deno.writeTextFileSync(`${repository}/refs/main`, "bbb\n");
    use(home, hub);
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
}

const env = (values: Record<string, string>) => ({ get: (name: string) => values[name] });
const none = { revision: null, downloadDir: null };

Deno.test("identity: a directory is the same however it is written, and a name is itself", () => {
  const root = Deno.realPathSync(Deno.makeTempDirSync());
  const directory = `${root}/model`;
  Deno.mkdirSync(directory);
  Deno.symlinkSync(directory, `${root}/link`);
  for (const written of ["model", "model/", "link", "link/../model", "./model//"]) {
    assert.equal(modelIdentity(`${root}/${written}`), directory);
  }
  assert.equal(modelIdentity("organisation/name"), "organisation/name");
  Deno.removeSync(root, { recursive: true });
});

Deno.test("locate: a local directory is itself", () => {
  const directory = Deno.makeTempDirSync();
  assert.equal(locateModel(directory, none), directory);
  assert.equal(locateModel(`${directory}/`, none), directory);
  Deno.writeTextFileSync(`${directory}/model.gguf`, "");
  assert.throws(() => locateModel(`${directory}/model.gguf`, none), {
    name: "ModelError",
    message: `${directory}/model.gguf is a file. Expected a directory in Hugging Face layout: ` +
      `config.json, *.safetensors, tokenizer.json.`,
  });
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("locate: hub names are found where the environment says the cache is", () => {
  withCache((home, hub) => {
    const found = `${hub}/models--org--name/snapshots/bbb`;
    const under = (values: Record<string, string>) => locateModel("org/name", none, env(values));
    assert.equal(under({ HOME: home }), found);
    assert.equal(under({ XDG_CACHE_HOME: `${home}/.cache` }), found);
    assert.equal(under({ HF_HOME: `${home}/.cache/huggingface`, HOME: "/nowhere" }), found);
    assert.equal(under({ HF_HUB_CACHE: hub, HF_HOME: "/nowhere" }), found);
    const options = { revision: null, downloadDir: hub };
    assert.equal(locateModel("org/name", options, env({ HF_HUB_CACHE: "/nowhere" })), found);
  });
});

Deno.test("locate: revisions are branches, tags or commits", () => {
  withCache((_, hub) => {
    const at = (revision: string) =>
      locateModel("org/name", { revision, downloadDir: hub }, env({}));
    assert.match(at("main"), /snapshots\/bbb$/);
    assert.match(at("aaa"), /snapshots\/aaa$/);
    assert.throws(() => at("v2"), {
      name: "ModelError",
      message: `Revision v2 of org/name is not in the local Hugging Face cache ` +
        `(${hub}/models--org--name). There: main, aaa, bbb. Fetch it first with ` +
        `"hf download org/name --revision v2", or choose another by --revision.`,
    });
    assert.throws(() => at("../.."), /Revision ..\/.. of org\/name is not in/);
  });
});

Deno.test("locate: what is nowhere is refused, and never downloaded", () => {
  withCache((_, hub) => {
    const options = { revision: null, downloadDir: hub };
    assert.throws(() => locateModel("org/other", options), {
      name: "ModelError",
      message: `Model org/other is neither a local directory nor in the local Hugging Face cache ` +
        `(${hub}/models--org--other). Models are not downloaded: fetch it first with ` +
        `"hf download org/other", or pass the directory that holds it.`,
    });
    for (const path of ["/models/absent", "./absent", "a/b/c", "~/absent"]) {
      assert.throws(() => locateModel(path, options), {
        name: "ModelError",
        message: `Model directory ${path} does not exist. Expected a directory in Hugging Face ` +
          "layout, or a name such as Qwen/Qwen3-0.6B that is in the local Hugging Face cache.",
      });
    }
  });
});

Deno.test("locate: an empty name is refused as such", () => {
  assert.throws(() => locateModel("", { revision: null, downloadDir: null }), {
    name: "ModelError",
    message: "The model's name is empty. Give a directory, or a name on the hub.",
  });
});
