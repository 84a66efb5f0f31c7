#!/usr/bin/env bash
# Fuzzes until each target has run often enough: campaign.sh FOLDER-OF-FUZZERS EXECUTIONS FOLDER [TARGET...]
# Keeps in FOLDER what it needs to go on another day: executions.csv, a line for each slice of at most SLICE seconds
# (default 300), the corpora as they grow, and findings/. Begins with the executions that were committed in
# tests/fuzz/executions.csv. Ends at once, with the status of libFuzzer, where an input breaks a promise.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
fuzzers=$1 wanted=$2 folder=$3
shift 3
here=$(dirname "$(readlink -f "$0")")
[ $# -gt 0 ] || set -- $(ls "$here/corpus")
mkdir -p "$folder/findings"
record=$folder/executions.csv
[ -f "$record" ] || cp "$here/executions.csv" "$record"

executed() { awk -F, -v target="$1" '$1 == target { sum += $2 } END { printf "%d\n", sum }' "$record"; }

for name in "$@"; do
  while count=$(executed "$name") && [ "$count" -lt "$wanted" ]; do
    echo "$name: $count of $wanted"
    start=$SECONDS
    # On a machine that does other work an input may wait long for its turn.
    FUZZ_CORPUS=$folder/corpus/$name "$here/fuzz.sh" "$fuzzers" "$name" "$folder/findings" -timeout=100 \
      -max_total_time="${SLICE:-300}" -runs=$((wanted - count)) >"$folder/slice"
    echo "$name,$(awk '/number_of_executed_units/ { print $2 }' "$folder/slice"),$((SECONDS - start)),$(date -u +%F),$(
      sha256sum "$fuzzers/${name}_fuzz" | cut -c 1-12)" >>"$record"
  done
done
for name in "$@"; do echo "$name: $(executed "$name")"; done
