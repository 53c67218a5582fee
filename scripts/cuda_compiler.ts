/** The CUDA compiler out of wheels of PyPI, for a machine that has none. */

/** What nvcc says of its version. */
export const compilerVersion = "V13.0.88";

/** The compiler and its parts, which lie over each other, and nvdisasm. */
const wheels: Readonly<Record<string, string>> = {
  "nvidia-cuda-nvcc==13.0.88": "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
  "nvidia-nvvm==13.0.88": "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0",
  "nvidia-cuda-crt==13.0.88": "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
  "nvidia-cuda-cccl==13.0.85": "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
  "nvidia-cuda-runtime==13.0.96":
    "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
  "nvidia-cuda-nvdisasm==13.2.51":
    "5a7acf77c55d6d2911ed6155d4d5bc156ffadf9df7a68a89b0c1155f4b13688c",
};

export interface CudaCompiler {
  /** Paths of the programs. */
  readonly nvcc: string;
  readonly nvdisasm: string;
}

/** The compiler cannot be had on this machine, which says nothing of the kernels. */
export class NoCompilerError extends Error {}

/**
 * Downloads the wheels by pip, 110 MB, checks their hashes, and unpacks them.
 * @param directory empty
 * @throws {NoCompilerError} no Linux x86-64, no pip, or the index cannot be reached
 * @throws {Error} a wheel is not the one that was named
 */
export async function fetchCompiler(directory: string): Promise<CudaCompiler> {
  if (Deno.build.target !== "x86_64-unknown-linux-gnu") {
    throw new NoCompilerError("the wheels are for Linux x86-64");
  }
  const requirements = `${directory}/requirements.txt`;
  const lines = Object.entries(wheels).map(([name, hash]) => `${name} --hash=sha256:${hash}`);
  await Deno.writeTextFile(requirements, lines.join("\n"));
  const said = await python([
    ...["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"],
    ...["--require-hashes", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"],
    ...["-d", directory, "-r", requirements],
  ]);
  if (said !== null) {
    // Another file than the named one is no outage.
    if (/DO NOT MATCH THE HASHES/i.test(said)) throw new Error(said);
    throw new NoCompilerError(said.split("\n").at(-1));
  }
  const unpacked = await python(["-c", unpack, directory]);
  if (unpacked !== null) throw new Error(unpacked);
  const programs = `${directory}/nvidia/cu13/bin`;
  return { nvcc: `${programs}/nvcc`, nvdisasm: `${programs}/nvdisasm` };
}

/** Wheels lose the right to execute. */
const unpack = `
import glob, os, sys, zipfile
for wheel in glob.glob(sys.argv[1] + "/*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(sys.argv[1])
for program in glob.glob(sys.argv[1] + "/nvidia/cu13/*/*") + glob.glob(sys.argv[1] + "/nvidia/cu13/nvvm/bin/*"):
    if os.path.isfile(program) and "/bin/" in program:
        os.chmod(program, 0o755)
`;

/** @returns null, or what it complains of */
async function python(args: readonly string[]): Promise<string | null> {
  try {
    const output = await new Deno.Command("python3", { args: [...args], stdin: "null" }).output();
    return output.success ? null : new TextDecoder().decode(output.stderr).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new NoCompilerError("there is no python3");
    throw error;
  }
}
