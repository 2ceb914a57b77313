#!/bin/sh
# Makes a node of a container one of a cluster, by the invitation (`troop cluster invite`) in a file. Does nothing when that was done
# with the same invitation, so that it can run before each start; another invitation replaces the certificate.
# usage: troop-join FILE
# The certificate and its key go to the folder cluster under TROOP_PREFIX, where cluster_cert, cluster_cert_key and
# cluster_ca_cert have to point.
set -eu
umask 077
invitation=$1
folder=$TROOP_PREFIX/cluster
if ! [ -s "$invitation" ]; then
    # The invitation may be gone once it was used.
    [ -s "$folder/invitation.sha256" ] && exit 0
    echo "there is no invitation at $invitation" >&2
    exit 1
fi
sum=$(sha256sum < "$invitation")
if [ -s "$folder/invitation.sha256" ] && [ "$(cat "$folder/invitation.sha256")" = "$sum" ]; then
    exit 0
fi
# Whole or not at all, whenever this is broken off.
rm -rf "$folder.new"
troop cluster join "@$invitation" --dir "$folder.new"
echo "$sum" > "$folder.new/invitation.sha256"
rm -rf "$folder"
mv "$folder.new" "$folder"
