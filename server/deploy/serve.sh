#!/bin/sh
# serve.sh: draws the trial's partition, once, then becomes the server.
set -eu
settings="--set data.set=fashion-mnist"
if [ ! -f /manifest/manifest.json ]; then
  # shellcheck disable=SC2086
  headstart-lab partition $settings --set partition.kind=label-dirichlet --set "partition.clients=$CLIENTS" --set seed=1 \
    --set draw.validation=600 --set draw.public_large=5000 --set draw.clients=6000 --set draw.test=2000 \
    --out /manifest/manifest.json
fi
# shellcheck disable=SC2086
exec headstart-server $settings --set data.manifest=/manifest/manifest.json --set run.folder=/runs/run \
  --set listen.address=0.0.0.0 --set admin.port=9841 --set tls.authority=/tls/authority.pem \
  --set tls.certificate=/tls/server.pem --set tls.key=/tls/server.key --set tls.revoked=/requests/revoked.pem \
  --set "federation.clients=$CLIENTS" \
  --set start.model=kd --set validation.source=server --set model.kernel=5 --set model.hidden=512 \
  --set pretrain.max_epochs=15 --set consolidation.epochs=10 --set consolidation.temperature=3 \
  --set consolidation.weights=precision --set train.batch_size=32 "$@"
