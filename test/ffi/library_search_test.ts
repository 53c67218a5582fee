import assert from "node:assert/strict";
import {
  candidates,
  installedFiles,
  libraries,
  searchedDirectories,
  type SearchPlaces,
} from "../../ffi/library_search.ts";

/** A host with these files, and these environment variables, under a directory of its own. */
async function withHost(
  files: readonly string[],
  run: (places: SearchPlaces, root: string) => void,
  { ldconfig = "", variables = {} as Record<string, string> } = {},
): Promise<void> {
  const root = await Deno.makeTempDir({ prefix: "host-" });
  try {
    for (const file of files) {
      const path = `${root}${file}`;
      await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
      await Deno.writeTextFile(path, file);
    }
    run({
      ...{ root, loader: true },
      ldconfig: () => ldconfig,
      variable: (name) => variables[name]?.replaceAll("ROOT", root),
    }, root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

function found(library: Parameters<typeof installedFiles>[0], places: SearchPlaces): string[] {
  return [...installedFiles(library, places)].map((path) => path.replace(places.root, ""));
}

Deno.test("sonames come first, for the loader; then files, the newest version first", async () => {
  const files = [
    "/usr/local/cuda-12.9/lib64/libcudart.so.12",
    "/usr/local/cuda-13.0/lib64/libcudart.so.13",
    "/usr/local/cuda-13.0/lib64/libcudart.so.13.0.96",
    "/usr/local/nvidia/lib64/libcudart.so.12",
  ];
  await withHost(files, (places, root) => {
    assert.deepEqual([...candidates(libraries.cudart, undefined, places)], [
      ...libraries.cudart.sonames,
      `${root}/usr/local/cuda-13.0/lib64/libcudart.so.13`,
      `${root}/usr/local/cuda-12.9/lib64/libcudart.so.12`,
      `${root}/usr/local/nvidia/lib64/libcudart.so.12`,
    ]);
  });
});

Deno.test("a link and its file are one file", async () => {
  await withHost(["/usr/local/cuda-12.9/lib64/libcudart.so.12"], (places, root) => {
    Deno.symlinkSync(`${root}/usr/local/cuda-12.9`, `${root}/usr/local/cuda`);
    assert.deepEqual(found(libraries.cudart, places), [
      "/usr/local/cuda-12.9/lib64/libcudart.so.12",
    ]);
  });
});

Deno.test("wheels of the environment, of conda, of Pythons on PATH and of the user are searched", async () => {
  const site = (prefix: string, rest: string) => `${prefix}/lib/python3.12/site-packages/${rest}`;
  const nccl = "nvidia/nccl/lib/libnccl.so.2";
  const files = [
    site("/venv", nccl),
    site("/conda", nccl),
    site("/python", nccl),
    "/python/bin/python3",
    site("/home/me/.local", nccl),
    site("/home/me/.pyenv/versions/3.12.1", nccl),
    "/usr/lib/python3/dist-packages/" + nccl,
  ];
  const variables = {
    VIRTUAL_ENV: "ROOT/venv",
    CONDA_PREFIX: "ROOT/conda",
    PATH: "ROOT/nothing:ROOT/python/bin:relative/bin",
    HOME: "ROOT/home/me",
  };
  await withHost(files, (places) => {
    assert.deepEqual(found(libraries.nccl, places), [
      site("/venv", nccl),
      site("/conda", nccl),
      site("/python", nccl),
      site("/home/me/.local", nccl),
      "/usr/lib/python3/dist-packages/" + nccl,
      site("/home/me/.pyenv/versions/3.12.1", nccl),
    ]);
  }, { variables });
});

Deno.test("wheels of CUDA 12 and 13 have their libraries in different directories", async () => {
  const site = "/venv/lib/python3.12/site-packages";
  const files = [
    `${site}/nvidia/cuda_runtime/lib/libcudart.so.12`,
    `${site}/nvidia/cu13/lib/libcudart.so.13`,
    `${site}/nvidia/cu13/lib/libcublasLt.so.13`,
  ];
  await withHost(files, (places) => {
    assert.deepEqual(found(libraries.cudart, places), [files[1], files[0]]);
    assert.deepEqual(found(libraries.cublasLt, places), [files[2]]);
  }, { variables: { VIRTUAL_ENV: "ROOT/venv" } });
});

Deno.test("UCX is found in its own wheel, and in others under names with a hash", async () => {
  const site = "/venv/lib/python3.12/site-packages";
  const files = [
    `${site}/libucx/lib/libucp.so.0`,
    `${site}/.nixl_cu13.mesonpy.libs/libucp-5e6f7a8b.so.0.0.0`,
    `${site}/nixl_cu13.libs/libucp-1a2b3c4d.so.0.0.0`,
    // Neighbours with names that begin alike.
    `${site}/nixl_cu13.libs/libucp_backend-1a2b.so.0`,
    `${site}/nixl_cu13.libs/libucs-1a2b3c4d.so.0.0.0`,
    `${site}/libucx/lib/libucp.so`,
  ];
  await withHost(files, (places) => {
    assert.deepEqual(found(libraries.ucp, places), files.slice(0, 3));
    const shown = searchedDirectories(places).map((path) => path.replace(places.root, ""));
    assert.ok(shown.includes(`${site}/nixl_cu13.libs`), "a failure says that this was searched");
  }, { variables: { VIRTUAL_ENV: "ROOT/venv" } });
});

Deno.test("the list of ldconfig is read", async () => {
  const ldconfig = [
    "3 libs found in cache `/etc/ld.so.cache'",
    "\tlibnccl.so.2 (libc6,x86-64) => /opt/nccl/lib/libnccl.so.2",
    "\tlibnccl.so (libc6,x86-64) => /opt/nccl/lib/libnccl.so",
    "\tlibcudart.so.12 (libc6,x86-64, OS ABI: Linux 3.2.0) => /opt/cuda/lib/libcudart.so.12",
  ].join("\n");
  const files = ["/opt/nccl/lib/libnccl.so.2", "/opt/cuda/lib/libcudart.so.12"];
  await withHost(files, (places) => {
    assert.deepEqual(found(libraries.nccl, places), ["/opt/nccl/lib/libnccl.so.2"]);
    assert.deepEqual(found(libraries.cudart, places), ["/opt/cuda/lib/libcudart.so.12"]);
  }, { ldconfig });
});

Deno.test("an explicit place is the only one: a file, or a directory by sonames", async () => {
  const files = ["/soft/libcuda.so.1", "/usr/local/cuda/lib64/libcudart.so.13"];
  await withHost(files, (places, root) => {
    const soft = `${root}/soft`;
    assert.deepEqual([...candidates(libraries.cudart, soft, places)], [
      `${soft}/libcudart.so.13`,
      `${soft}/libcudart.so.12`,
      `${soft}/libcudart.so.11.0`,
    ]);
    assert.deepEqual([...candidates(libraries.cudart, "/my/cudart.so", places)], ["/my/cudart.so"]);
  });
  await withHost(files, (places, root) => {
    assert.deepEqual([...candidates(libraries.cuda, undefined, places)], [
      `${root}/soft/libcuda.so.1`,
    ]);
    assert.deepEqual([...candidates(libraries.ucp, undefined, places)], ["libucp.so.0"]);
  }, { variables: { LLUMNIX_CUDA_LIBRARIES: "ROOT/soft" } });
});

Deno.test("a file in the variable counts for its own library only", async () => {
  const file = "/opt/libcudart.so.12";
  await withHost([file], (places, root) => {
    assert.deepEqual([...candidates(libraries.cudart, undefined, places)], [root + file]);
    assert.deepEqual([...candidates(libraries.cuda, undefined, places)], ["libcuda.so.1"]);
    assert.deepEqual([...candidates(libraries.nccl, undefined, places)], ["libnccl.so.2"]);
  }, { variables: { LLUMNIX_CUDA_LIBRARIES: `ROOT${file}` } });
  // A directory that is not there is still the only place: the failure names it.
  await withHost([], (places, root) => {
    assert.deepEqual([...candidates(libraries.nccl, undefined, places)], [`${root}/gone`]);
  }, { variables: { LLUMNIX_CUDA_LIBRARIES: "ROOT/gone" } });
});

Deno.test("a host without anything yields the sonames alone", async () => {
  await withHost([], (places) => {
    assert.deepEqual([...candidates(libraries.nccl, undefined, places)], ["libnccl.so.2"]);
    assert.deepEqual(searchedDirectories(places), []);
  });
});
