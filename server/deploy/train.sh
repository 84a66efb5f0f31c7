#!/bin/sh
# train.sh NAME SHARE: becomes the silo's client, on its share of the trial's partition.
set -eu
until [ -f /manifest/manifest.json ]; do sleep 1; done
exec headstart-client --server wss://server:9840 --name "$1" --set tls.authority=/tls/authority.pem \
  --set "tls.certificate=/tls/$1.pem" --set "tls.key=/tls/$1.key" --set data.set=fashion-mnist \
  --set data.manifest=/manifest/manifest.json --set "data.share=$2" --set connect.patience=600
