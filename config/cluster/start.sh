#!/bin/sh
# Starts three nodes of a cluster on this machine and stops them with Ctrl-C. What they keep goes to the folder that is given.
# usage: config/cluster/start.sh [FOLDER]     TROOP names the program when it is not in the PATH
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-troop-cluster}
mkdir -p "$folder"
nodes=""
trap 'kill $nodes 2>/dev/null || true; wait' INT TERM EXIT
for n in 1 2 3; do
    "${TROOP:-troop}" start -c "$here/node-$n.conf" -p "$folder/node-$n" > "$folder/node-$n.log" 2>&1 &
    nodes="$nodes $!"
    echo "node $n: proxy 127.0.0.1:8${n}00, Admin API 127.0.0.1:8${n}01, log $folder/node-$n.log"
done
echo "how they stand: curl 127.0.0.1:8101/cluster/status"
wait
