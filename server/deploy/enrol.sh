#!/bin/sh
# enrol.sh NAME COMMAND...: gets NAME a certificate, once, then becomes COMMAND.
# The key is made in /tls and stays there; the request and the certificate travel through the folder /requests, which
# stands for the mail between a silo and the coordinator.
set -eu
name=$1
shift
if [ ! -f "/tls/$name.pem" ]; then
  # The request is written after its key: where one is missing, so may the other be.
  [ -f "/tls/$name.csr" ] || headstart-pki request --name "$name" --out /tls
  cp "/tls/$name.csr" "/requests/$name.csr.part"
  mv "/requests/$name.csr.part" "/requests/$name.csr"
  echo "waiting for the certificate of $name"
  until [ -f "/requests/$name.pem" ]; do sleep 1; done
  cp "/requests/authority.pem" /tls/authority.pem
  cp "/requests/$name.pem" "/tls/$name.pem.part"
  mv "/tls/$name.pem.part" "/tls/$name.pem"
fi
exec "$@"
