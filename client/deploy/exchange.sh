#!/bin/sh
# exchange.sh SHARE: becomes the site's peer, on what lies in its data volume. An empty one is filled first, with the share
# of the trial's partition that is this site's; own samples there, in the same form, are left as they are. The partition is
# the same wherever it is drawn.
set -eu
if [ ! -f /data/train-labels.npy ]; then
  if [ ! -f /state/manifest.json ]; then
    headstart-lab partition --set data.set=fashion-mnist --set partition.kind=label-dirichlet --set partition.clients=3 \
      --set seed=1 --set draw.validation=0 --set draw.public_large=0 --set draw.public_small=0 \
      --set draw.public_labeled=0 --set draw.clients=6000 --set draw.test=2000 --out /state/manifest.json
  fi
  headstart-lab export --manifest /state/manifest.json --client "$1" --out /data
fi
exec headstart-peer --peers /config/peers.json --config /config/site.json
