#!/bin/sh
# train.sh NAME SHARE: becomes the silo's client, on what lies in its data volume. An empty one is filled first, with the
# silo's share of the trial's partition; the silo's own samples there, in the same form, are left as they are. The trial's
# student starts from one silo's model, which that silo must agree to (share_model); here all do.
set -eu
if [ ! -f /data/train-labels.npy ]; then
  until [ -f /manifest/manifest.json ]; do sleep 1; done
  headstart-lab export --manifest /manifest/manifest.json --client "$2" --out /data
fi
exec headstart-client --server wss://server:9840 --name "$1" --set tls.authority=/tls/authority.pem \
  --set "tls.certificate=/tls/$1.pem" --set "tls.key=/tls/$1.key" --set data.set=tensors --set data.path=/data \
  --set share_model=peers --set connect.patience=600
