#!/bin/bash
# health.sh: ends well while the container's program is well; what the image's HEALTHCHECK runs. A server or peer is asked
# at its admin port, which is to be 9841 or what HEADSTART_ADMIN_PORT says. A client has no port and is well while it lives.
set -eu
for name in /proc/[0-9]*/comm; do
  # The kernel keeps 15 characters of a name. A process may end between the two looks.
  program=$(cat "$name" 2>/dev/null) || true
  if [ "$program" = headstart-serve ] || [ "$program" = headstart-peer ]; then
    exec 3<>"/dev/tcp/127.0.0.1/${HEADSTART_ADMIN_PORT:-9841}"
    printf 'GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
    read -r _ status _ <&3
    [ "$status" = 200 ]
    exit
  fi
done
