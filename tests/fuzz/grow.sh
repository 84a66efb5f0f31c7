#!/usr/bin/env bash
# Renews the committed corpus: grow.sh FOLDER-OF-FUZZERS SECONDS [TARGET...]
# Fuzzes each target for SECONDS from its seeds (headstart_fuzz_seeds) and the corpus there is, and keeps the fewest and
# smallest inputs that reach as much code.
set -euo pipefail
fuzzers=$(readlink -f "$1") seconds=$2
shift 2
here=$(dirname "$(readlink -f "$0")")
export ASAN_OPTIONS=detect_stack_use_after_return=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$fuzzers/headstart_fuzz_seeds" "$work/seeds" "$here/../golden/images"
[ $# -gt 0 ] || set -- $(ls "$work/seeds")
for name in "$@"; do
  mkdir -p "$work/grown" "$work/kept" "$here/corpus/$name"
  "$fuzzers/${name}_fuzz" -max_total_time="$seconds" -timeout=10 "$work/grown" "$work/seeds/$name" "$here/corpus/$name"
  "$fuzzers/${name}_fuzz" -set_cover_merge=1 -use_counters=0 "$work/kept" "$work/seeds/$name" "$here/corpus/$name" "$work/grown"
  rm -rf "$here/corpus/$name" "$work/grown"
  mv "$work/kept" "$here/corpus/$name"
done
