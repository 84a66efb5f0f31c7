#!/usr/bin/env bash
# Fuzzes one reader: fuzz.sh FOLDER-OF-FUZZERS NAME FINDINGS [LIBFUZZER-OPTION...]
# Starts from the committed corpus, which it leaves as it is; an input that breaks a promise is kept in FINDINGS. What is
# found on the way is kept in the folder FUZZ_CORPUS, where that is set, for the next call.
set -euo pipefail
fuzzers=$1 name=$2 findings=$3
shift 3
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=${FUZZ_CORPUS:-$work/corpus}
mkdir -p "$findings" "$corpus"
options=(-timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=1 -artifact_prefix="$findings/$name-")
[ -f "$here/$name.dict" ] && options+=(-dict="$here/$name.dict")
# With AddressSanitizer's stand-in for the stack every exception costs four times as much, and most inputs are refused.
# Whole stacks of allocations and a quarantine beyond the caches are for whoever replays a finding.
export ASAN_OPTIONS=detect_stack_use_after_return=0:malloc_context_size=1:quarantine_size_mb=16${ASAN_OPTIONS:+:$ASAN_OPTIONS}
"$fuzzers/${name}_fuzz" "${options[@]}" "$@" "$corpus" "$here/corpus/$name" 2>"$work/log" || {
  status=$?
  cat "$work/log" >&2
  exit "$status"
}
# How many inputs were tried, and what they reached.
grep -E 'DONE|^stat::' "$work/log"
