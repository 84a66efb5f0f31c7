#!/bin/sh
# put.sh FILE: writes standard input to FILE, which changes at once or not at all: a server may be reading it. Nothing
# at all, as from a command before the pipe that failed, is refused.
set -eu
umask 077
cat > "$1.part"
if [ ! -s "$1.part" ]; then
  rm "$1.part"
  echo "put.sh: nothing came for $1, which stays as it was; see what the command before the pipe says" >&2
  exit 1
fi
mv "$1.part" "$1"
