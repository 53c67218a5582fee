#!/bin/sh
# Llumnix in one file: this script, the program's files, and the compressed runtime. The first run
# unpacks them into a cache, under names that contain their hashes; later runs go straight to exec.
user_path=$PATH
PATH=$PATH:/usr/local/bin:/usr/bin:/bin
case $0 in
  /*) self=$0 ;;
  *) self=$PWD/$0 ;;
esac

# Runs only files that this user alone could have written, which matters below /tmp.
is_ready() {
  [ -O "$place" ] && [ ! -L "$place" ] && [ -f "$place/@APP@/@MAIN@" ] && [ -x "$place/@RUNTIME@" ]
}

# Files are moved into place when complete, so that concurrent first runs do not disturb each other.
unpack() {
  mkdir -p -m 700 "$place" && [ -O "$place" ] && [ ! -L "$place" ] && chmod 700 "$place" || return
  work=$(mktemp -d "$place/unpack.XXXXXX") || return
  note=
  trap tidy EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [ ! -d "$place/@APP@" ]; then
    mkdir "$work/app" && (
      cd "$work/app" && mkdir -p @DIRECTORIES@ || exit
      while read -r file skip blocks bytes; do
        dd if="$self" bs=4096 skip="$skip" count="$blocks" | head -c "$bytes" >"$file" || exit
      done <<END
@FILES@
END
      [ "$(find . -type f -exec cat {} + | wc -c)" -eq @APP_BYTES@ ]
    ) && mv "$work/app" "$place/@APP@"
    rm -rf "$place/@APP@/app" # ours, if another first run was faster
  fi
  if [ ! -x "$place/@RUNTIME@" ]; then
    (
      trap 'kill $!; exit' TERM
      sleep 3 3>&- &
      wait $! && echo "llumnix: unpacking into $place, this once" >&3
    ) >&2 &
    note=$!
    dd if="$self" bs=4096 skip=@RUNTIME_SKIP@ | gzip -dc >"$work/runtime" &&
      chmod 700 "$work/runtime" && runs && mv "$work/runtime" "$place/@RUNTIME@"
  fi
  tidy
  trap - EXIT HUP INT TERM
} 3>&2 2>/dev/null

# From a place of which nothing may be executed (126) the next place is tried.
runs() {
  "$work/runtime" --version >/dev/null 2>&1
  case $? in
    0) ;;
    126) return 1 ;;
    *)
      echo "llumnix: the runtime does not start here: it needs @NEEDS@" >&3
      exit 126
      ;;
  esac
}

tidy() {
  [ -z "$note" ] || kill "$note"
  rm -rf "$work"
} 2>/dev/null

for step in is_ready unpack; do
  if [ "$step" = unpack ] && [ "$(uname -sm)" != "@SYSTEM@" ]; then
    echo "llumnix: this file is for @SYSTEM@, and this host is $(uname -sm)" >&2
    exit 126
  fi
  for place in "${XDG_CACHE_HOME:+$XDG_CACHE_HOME/llumnix}" "${HOME:+$HOME/.cache/llumnix}" tmp; do
    if [ "$place" = tmp ]; then place=${TMPDIR:-/tmp}/llumnix-$(id -u); fi
    case $place in
      /*) $step && is_ready || continue ;;
      *) continue ;;
    esac
    PATH=$user_path
    export LLUMNIX_SELF="$self" DENO_DIR="$place/deno" DENO_NO_UPDATE_CHECK=1
    # Deno does not start if it rejects ~/.npmrc, so HOME is hidden (environment.ts restores it).
    export LLUMNIX_HOME="${HOME-}" HOME="$place"
    exec "$place/@RUNTIME@" run @FLAGS@ "$place/@APP@/@MAIN@" "$@"
  done
done

echo "llumnix: cannot unpack into \$XDG_CACHE_HOME, \$HOME/.cache or \${TMPDIR:-/tmp}. Set" \
  "XDG_CACHE_HOME to a directory of yours with 150 MB free, from which programs may run." >&2
exit 126
