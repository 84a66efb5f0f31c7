#!/bin/sh
# authority.sh NAME...: signs the requests of these names (the first is the server's) as they come, then ends.
# A trial's authority: a real one compares each fingerprint with what the silo reads out before it signs.
set -eu
folder=/pki/authority
# give FILE NAME: puts FILE into /requests as NAME, whole or not at all: others read there.
give() {
  cp "$1" "/requests/$2.part"
  mv "/requests/$2.part" "/requests/$2"
}
[ -f "$folder/authority.key" ] || headstart-pki init --folder "$folder"
server=$1
for name in "$@"; do
  if [ -f "/requests/$name.pem" ]; then continue; fi
  until [ -f "/requests/$name.csr" ]; do sleep 1; done
  if [ "$name" = "$server" ]; then
    signed=$(headstart-pki sign "/requests/$name.csr" --folder "$folder" --server --host "$name")
  else
    signed=$(headstart-pki sign "/requests/$name.csr" --folder "$folder")
  fi
  echo "$signed"
  give "$folder/authority.pem" authority.pem
  give "$folder/revoked.pem" revoked.pem
  give "$(echo "$signed" | head -n 1)" "$name.pem"
done
echo "all certificates are there"
