#!/usr/bin/env bash
# Builds the guest: pinned sources of QuickJS-NG, our shim and prelude, one wasm module.
# usage: build.sh OUT.wasm      then `cargo xtask guest` makes the image that is committed.
#
# The same bytes come out wherever it runs. It needs python3 with pip, or `zig` $ZIG of the pinned
# version, and cargo, which fetches and verifies the crate that carries the engine's sources.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
out="${1:?usage: build.sh OUT.wasm}"
zig_version=0.17.1
engine_crate=rquickjs-sys engine_version=0.14.0
stack=524288

cache="${XDG_CACHE_HOME:-$HOME/.cache}/bowline/guest"
mkdir -p "$cache"
if [ -z "${ZIG:-}" ]; then
    if [ ! -x "$cache/zig-$zig_version/ziglang/zig" ]; then
        python3 -m pip install --quiet --require-hashes --no-deps --only-binary :all: \
            --target "$cache/zig-$zig_version" -r "$here/zig.txt"
    fi
    ZIG="$cache/zig-$zig_version/ziglang/zig"
fi
[ "$("$ZIG" version)" = "$zig_version" ] || { echo "build.sh: zig $zig_version is needed" >&2; exit 1; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# cargo checks the crate against the checksum of Cargo.lock beside this script.
mkdir -p "$work/fetch/src"
cp "$here/engine/Cargo.toml" "$here/engine/Cargo.lock" "$work/fetch/"
: >"$work/fetch/src/lib.rs"
(cd "$work/fetch" && cargo vendor --locked --versioned-dirs --quiet "$work/vendor" >/dev/null)
cp -r "$work/vendor/$engine_crate-$engine_version/quickjs" "$work/quickjs"
cp "$here/shim.c" "$here/heap.c" "$here/sha.c" "$work/quickjs/"
# Small objects come from the heap as large ones do: blocks of the engine's own, one for each size, would spread
# what a run writes over many pages. The heap is called without a detour over pointers.
patch() { # FROM TO: every line that has FROM, at least one
    grep -qF "$1" "$work/quickjs/quickjs.c" || { echo "build.sh: the engine has no $1" >&2; exit 1; }
    python3 -c 'import sys; f = sys.argv[1]; t = open(f).read(); open(f, "w").write(t.replace(*sys.argv[2:]))' \
        "$work/quickjs/quickjs.c" "$1" "$2"
}
patch '#define JS_ARENA_LARGE_BLOCKS_ONLY 0' '#define JS_ARENA_LARGE_BLOCKS_ONLY 1'
patch 'rt->mf.js_malloc_usable_size(' 'malloc_usable_size('
patch 'rt->mf.js_malloc(rt->malloc_state.opaque,' 'malloc('
patch 'rt->mf.js_calloc(rt->malloc_state.opaque,' 'calloc('
patch 'rt->mf.js_realloc(rt->malloc_state.opaque,' 'realloc('
patch 'rt->mf.js_free(rt->malloc_state.opaque,' 'free('
# The engine's version of this check prints and aborts; nothing here may print.
python3 - "$here" "$work/quickjs/prelude.inc" <<'PY'
import pathlib, sys
here = pathlib.Path(sys.argv[1])
text = (here / "prelude.js").read_text().replace("  //@URL@\n", (here / "url.js").read_text()).encode()
assert b"@URL@" not in text
body = ",".join(str(b) for b in text)
pathlib.Path(sys.argv[2]).write_text(
    "const unsigned prelude_len = %d;\nconst char prelude[] = {%s,0};\n" % (len(text), body))
PY
cd "$work/quickjs"
ZIG_GLOBAL_CACHE_DIR="$cache/zig-cache" ZIG_LOCAL_CACHE_DIR="$work/zig" \
    "$ZIG" cc --target=wasm32-wasi -mexec-model=reactor -O2 -g0 -std=gnu11 -w -DNDEBUG \
    -DGUEST_STACK=$stack -fno-sanitize=undefined \
    -Wl,-z,stack-size=$stack -Wl,--export=__stack_pointer -s \
    -o "$work/guest.wasm" shim.c
cp "$work/guest.wasm" "$out"
