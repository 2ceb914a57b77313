#!/bin/sh
# Makes the authority of the cluster and an invitation for each node, unless they are there. Only this container sees the
# authority's key, and each node only its own invitation.
# usage: invite.sh SEEDS NODE...
#        invite.sh --renew NODE ID     another invitation for a node that exists: its certificate is replaced at its next start
# AUTHORITY and INVITATIONS name the folders where they are not the container's.
set -eu
umask 077
authority=${AUTHORITY:-/authority}/cluster

# invite NODE ARGUMENTS...
invite() {
    invitation=${INVITATIONS:-/invitations}/$1/token
    shift
    troop cluster invite --dir "$authority" "$@" > "$invitation.new"
    # The node's user in the image.
    [ "$(id -u)" != 0 ] || chown 10001:10001 "$invitation.new"
    mv -f "$invitation.new" "$invitation"
}

if [ "$1" = --renew ]; then
    invite "$2" --node "$3"
    exit
fi
seeds=$1
shift
if ! [ -d "$authority" ]; then
    rm -rf "$authority.new"
    troop cluster init --dir "$authority.new"
    mv "$authority.new" "$authority"
fi
for node; do
    [ -s "${INVITATIONS:-/invitations}/$node/token" ] || invite "$node" --seeds "$seeds"
done
