#!/bin/sh
# authority.sh NAME...: signs the requests of these names (the first is the server's) as they come, then ends.
# authority.sh --peers NAME...: the same for peers, which have no server.
# A trial's authority: a real one compares each fingerprint with what the silo reads out before it signs.
set -eu
folder=/pki/authority
# give FILE NAME: puts FILE into /requests as NAME, whole or not at all: others read there.
give() {
  cp "$1" "/requests/$2.part"
  mv "/requests/$2.part" "/requests/$2"
}
# sign NAME OPTION...: a request that was signed before this script was killed is signed once more, for the same key.
sign() {
  request=/requests/$1.csr
  shift
  headstart-pki sign "$request" --folder "$folder" "$@" || headstart-pki sign "$request" --folder "$folder" "$@" --renew
}
[ -f "$folder/authority.key" ] || headstart-pki init --folder "$folder"
server=$1
if [ "$server" = --peers ]; then shift; fi
for name in "$@"; do
  if [ -f "/requests/$name.pem" ]; then continue; fi
  until [ -f "/requests/$name.csr" ]; do sleep 1; done
  if [ "$server" = --peers ]; then
    signed=$(sign "$name" --peer)
  elif [ "$name" = "$server" ]; then
    signed=$(sign "$name" --server --host "$name")
  else
    signed=$(sign "$name")
  fi
  echo "$signed"
  give "$folder/authority.pem" authority.pem
  give "$folder/revoked.pem" revoked.pem
  give "$(echo "$signed" | head -n 1)" "$name.pem"
done
echo "all certificates are there"
