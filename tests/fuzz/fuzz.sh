#!/usr/bin/env bash
# Fuzzes one reader: fuzz.sh FOLDER-OF-FUZZERS NAME FINDINGS [LIBFUZZER-OPTION...]
# Starts from the committed corpus, which it leaves as it is; an input that breaks a promise is kept in FINDINGS.
set -euo pipefail
fuzzers=$1 name=$2 findings=$3
shift 3
here=$(dirname "$(readlink -f "$0")")
mkdir -p "$findings"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/corpus"
options=(-timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=1 -artifact_prefix="$findings/$name-")
[ -f "$here/$name.dict" ] && options+=(-dict="$here/$name.dict")
# With AddressSanitizer's stand-in for the stack every exception costs four times as much, and most inputs are refused.
export ASAN_OPTIONS=detect_stack_use_after_return=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}
"$fuzzers/${name}_fuzz" "${options[@]}" "$@" "$work/corpus" "$here/corpus/$name" 2>"$work/log" || {
  status=$?
  cat "$work/log" >&2
  exit "$status"
}
# How many inputs were tried, and what they reached.
grep -E 'DONE|^stat::' "$work/log"
