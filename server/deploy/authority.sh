#!/bin/sh
# authority.sh NAME...: signs the requests of these names (the first is the server's) as they come, then ends.
# A trial's authority: a real one compares each fingerprint with what the silo reads out before it signs.
set -eu
folder=/pki/authority
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
  cp "$folder/authority.pem" /requests/authority.pem
  cp "$folder/revoked.pem" /requests/revoked.pem
  cp "$(echo "$signed" | head -n 1)" "/requests/$name.pem.part"
  mv "/requests/$name.pem.part" "/requests/$name.pem"
done
echo "all certificates are there"
