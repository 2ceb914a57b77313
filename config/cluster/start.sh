#!/bin/sh
# Starts three nodes of a cluster on this machine and stops them with Ctrl-C. What they keep goes to the folder that is given.
# usage: config/cluster/start.sh [FOLDER]     TROOP names the program when it is not in the PATH
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-troop-cluster}
program=${TROOP:-troop}
if ! command -v "$program" > /dev/null; then
    echo "$0: there is no program $program: build it (cargo build --release) and say where it is (TROOP=target/release/troop $0)" >&2
    exit 127
fi
mkdir -p "$folder"
nodes=""
trap 'kill $nodes 2>/dev/null || true; wait' INT TERM EXIT
for n in 1 2 3; do
    "$program" start -c "$here/node-$n.conf" -p "$folder/node-$n" > "$folder/node-$n.log" 2>&1 &
    nodes="$nodes $!"
    echo "node $n: proxy 127.0.0.1:8${n}00, Admin API 127.0.0.1:8${n}01, log $folder/node-$n.log"
done
echo "how they stand: curl 127.0.0.1:8101/cluster/status"
wait
