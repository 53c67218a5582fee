/** Headers of the versions that are checked, out of wheels of Python. */
import type { LibraryKey } from "./expected.ts";
import type { Header } from "./measure.ts";

/** A version of a library, and the wheels that hold its headers. */
export interface CheckedVersion {
  readonly key: LibraryKey;
  readonly version: string;
  /** Requirements as pip takes them; the library's own wheel is the first one. */
  readonly wheels: readonly string[];
  readonly file: string;
  readonly prelude?: readonly string[];
}

/** Headers of the compiler, which the wheels of CUDA include: the same for all versions. */
const compilerHeaders = "nvidia-cuda-crt==13.0.88";

function cudaVersion(version: string, wheel: string): CheckedVersion[] {
  const wheels = [wheel, compilerHeaders];
  return [
    // With this macro the header declares old forms of functions too, under their real names.
    {
      ...{ key: "cuda", version, wheels, file: "cuda.h" },
      prelude: ["#define __CUDA_API_VERSION_INTERNAL"],
    },
    { key: "cudart", version, wheels, file: "cuda_runtime_api.h" },
  ];
}

/** What headers need that include cuda_fp16.h. */
const cuda13 = ["nvidia-cuda-runtime==13.0.96", compilerHeaders, "nvidia-cuda-cccl-cu12==12.9.27"];

export const checkedVersions: readonly CheckedVersion[] = [
  ...cudaVersion("11.8", "nvidia-cuda-runtime-cu11==11.8.89"),
  ...cudaVersion("12.8", "nvidia-cuda-runtime-cu12==12.8.90"),
  ...cudaVersion("12.9", "nvidia-cuda-runtime-cu12==12.9.79"),
  ...cudaVersion("13.0", cuda13[0]),
  ...cudaVersion("13.5", "nvidia-cuda-runtime==13.5.37"),
  ...[
    { version: "2.19.3", wheel: "nvidia-nccl-cu12==2.19.3" },
    { version: "2.28.9", wheel: "nvidia-nccl-cu13==2.28.9" },
    { version: "2.32.3", wheel: "nvidia-nccl-cu13==2.32.3" },
  ].map(({ version, wheel }): CheckedVersion => ({
    ...{ key: "nccl", version, file: "nccl.h" },
    wheels: [wheel, ...cuda13],
  })),
  ...[
    { version: "1.18.1", wheel: "libucx-cu12==1.18.1" },
    { version: "1.22.0", wheel: "libucx-cu13==1.22.0" },
  ].map(({ version, wheel }): CheckedVersion => ({
    ...{ key: "ucp", version, file: "ucp/api/ucp.h", wheels: [wheel] },
  })),
  {
    ...{ key: "cublasLt", version: "13.10", file: "cublasLt.h" },
    wheels: ["nvidia-cublas==13.10.0.20", ...cuda13],
  },
];

/**
 * Downloads the wheels that the directory lacks and unpacks their headers.
 * @param directory holds wheels, and what is unpacked; the largest ones have 300 and 400 MB
 * @throws {Error} with pip's text
 */
export async function headerOf(checked: CheckedVersion, directory: string): Promise<Header> {
  const directories: string[] = [];
  for (const wheel of checked.wheels) directories.push(...await includes(wheel, directory));
  return { file: checked.file, directories, prelude: checked.prelude };
}

/** Include directories of a wheel. */
async function includes(requirement: string, directory: string): Promise<string[]> {
  const unpacked = `${directory}/headers/${requirement.replace("==", "-")}`;
  if (!await exists(unpacked)) {
    await python(["-m", "pip", "download", "-q", "--no-deps", "-d", directory, requirement]);
    const prefix = requirement.replaceAll("-", "_").replace("==", "-");
    const names = [...Deno.readDirSync(directory)].map((entry) => entry.name);
    const file = names.find((name) => name.startsWith(`${prefix}-`) && name.endsWith(".whl"));
    if (file === undefined) throw new Error(`pip brought no wheel of ${requirement}`);
    await python(["-c", unpackHeaders, `${directory}/${file}`, `${unpacked}.part`]);
    await Deno.rename(`${unpacked}.part`, unpacked);
  }
  // nvidia/cu13/include, nvidia/cuda_runtime/include, nvidia/nccl/include, libucx/include
  const roots = [`${unpacked}/libucx`];
  if (await exists(`${unpacked}/nvidia`)) {
    const parts = [...Deno.readDirSync(`${unpacked}/nvidia`)].map((entry) => entry.name);
    roots.push(...parts.map((part) => `${unpacked}/nvidia/${part}`));
  }
  return roots.map((root) => `${root}/include`);
}

const unpackHeaders = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [n for n in wheel.namelist() if "/include/" in n])
`;

async function python(args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("python3", { args }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr).trim());
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}
