#!/usr/bin/env bash
# Verifies on a GPU what exists for it: kernels, the executor, a service, transfers. Without one the same
# sections run on the software device, and every line of the report says so.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

usage() {
  cat <<'TEXT'
usage: scripts/gpu_verify.sh [--sections NAME,...] [--out DIRECTORY] [--carry DIRECTORY]
                             [--short] [--software-device] [--list] [--help]
       scripts/gpu_verify.sh --pack DIRECTORY

Runs all sections, or those named, each in a process of its own with its own limit, in less than nine
minutes. After each section the report is written: gpu_verify.json and gpu_verify.md.
Exit code: 0 if every section passed, 1 if not, 2 for wrong arguments.

  --sections NAME,...   run these sections only
  --out DIRECTORY       where the report goes (default: $OUT, else scripts/gpu_reports/DATE on a GPU
                        and dist/gpu_verify on the software device)
  --carry DIRECTORY     a directory that --pack filled, for hosts without Deno and without network
  --short               small shapes; on the software device they are always small
  --software-device     take the software device although there is a GPU
  --list                list the sections with their limits
  --pack DIRECTORY      put Deno (xz) and the packages of the program there, for --carry
TEXT
}

fail() {
  echo "gpu_verify: error: $1" >&2
  exit "${2:-2}"
}

# What the sections load; --pack stores the packages of these.
entries() {
  cd "$root"
  ls mod.ts scripts/gpu_verify/*.ts test/ffi/cuda/conformance_test.ts \
    test/kv/pool/cuda/device_pool_test.ts test/kv/transfer/rayrpc/device_rayrpc_test.ts \
    test/ffi/cuda/decoder_kernels_test.ts test/executor/cuda/host_device_test.ts
}

pack() {
  command -v deno >/dev/null || fail "--pack: deno is not on PATH" 1
  command -v xz >/dev/null || fail "--pack: xz is not on PATH" 1
  mkdir -p "$1"
  local carry
  carry=$(cd "$1" && pwd)
  xz -T0 -6 -c "$(readlink -f "$(command -v deno)")" >"$carry/deno.xz"
  local packages
  packages=$(mktemp -d)
  (cd "$root" && entries | DENO_DIR="$packages" xargs deno install --quiet --entrypoint)
  tar -C "$packages" -cf - npm | xz -T0 -6 >"$carry/packages.tar.xz"
  rm -r "$packages"
  du -ch "$carry/deno.xz" "$carry/packages.tar.xz"
}

words=()
carry=""
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --list) list=1; shift ;;
    --pack) [ $# -eq 2 ] || fail "--pack: expected a directory, and nothing else"; pack "$2"; exit 0 ;;
    --carry) [ $# -ge 2 ] || fail "--carry: expected a directory"; carry=$2; shift 2 ;;
    --sections | --out) [ $# -ge 2 ] || fail "$1: expected a value"; words+=("$1" "$2"); shift 2 ;;
    --short | --software-device) words+=("$1"); shift ;;
    *) fail "unknown argument: $1 (--help lists them)" ;;
  esac
done

# A compressed Deno in the carried directory comes before the one on PATH.
if [ -n "$carry" ]; then
  [ -f "$carry/deno.xz" ] || fail "--carry: no deno.xz in $carry; --pack makes one"
  unpacked=$(mktemp -d)
  trap 'rm -r "$unpacked"' EXIT
  # Python has xz where the host has no such program.
  if command -v xz >/dev/null; then unxz=(xz -dc); else
    unxz=(python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)')
  fi
  "${unxz[@]}" "$carry/deno.xz" >"$unpacked/deno"
  chmod u+x "$unpacked/deno"
  if [ -f "$carry/packages.tar.xz" ]; then
    mkdir "$unpacked/packages"
    "${unxz[@]}" "$carry/packages.tar.xz" | tar -C "$unpacked/packages" -xf -
    export DENO_DIR="$unpacked/packages"
  fi
  deno="$unpacked/deno"
else
  deno=$(command -v deno) || fail "deno is not on PATH: name a directory with deno.xz by --carry" 1
fi

cd "$root"
if [ -n "${list:-}" ]; then
  "$deno" eval --no-check 'const { sections } = await import("./scripts/gpu_verify/sections.ts");
    for (const { name, limitS, shows } of sections) console.log(name.padEnd(12), limitS + " s", shows);'
  exit 0
fi
"$deno" run -A --no-check scripts/gpu_verify/main.ts ${words[@]+"${words[@]}"}
