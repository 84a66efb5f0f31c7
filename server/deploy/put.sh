#!/bin/sh
# put.sh FILE: writes standard input to FILE, which changes at once or not at all: a server may be reading it.
set -eu
umask 077
cat > "$1.part"
mv "$1.part" "$1"
