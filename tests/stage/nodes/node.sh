#!/bin/sh
# The init of a node: a user-mode Linux kernel whose root is the host's, read-only. ROLE is server or client;
# the words NAME=value of the kernel's command line are our environment. Writes go to tmpfs or to NFS.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
for folder in /run /mnt /var/tmp /var/lib/nfs; do mount -t tmpfs tmpfs $folder; done
mkdir -p /var/lib/nfs/rpc_pipefs /run/kernel/lib/modules /mnt/tmp
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -t hostfs -o "$MODULES" hostfs /run/kernel/lib/modules
# The client's identity towards the file server: two of one name would throw each other out again and again.
hostname "$NODE"
ip link set lo up
ip addr add "$ADDRESS/24" dev vec0
ip link set vec0 up

server() {
    modprobe -d /run/kernel -a nfsd
    mkdir /mnt/export /var/lib/nfs/nfsdcltrack
    mount -t ext4 /dev/ubda /mnt/export
    mkdir -p /mnt/export/data /mnt/export/state
    chmod 1777 /mnt/export/data
    # Which clients there were is kept on the disk: so they may say after a crash what was theirs before.
    mount --bind /mnt/export/state /var/lib/nfs/nfsdcltrack
    mount -t rpc_pipefs rpc /var/lib/nfs/rpc_pipefs
    mount -t nfsd nfsd /proc/fs/nfsd
    # The least that the kernel takes: so long after a crash it waits for them.
    echo 10 > /proc/fs/nfsd/nfsv4leasetime
    echo 10 > /proc/fs/nfsd/nfsv4gracetime
    command -v nfsdcltrack > /dev/null || nfsdcld -p /var/lib/nfs/rpc_pipefs -s /mnt/export/state
    exportfs -o rw,sync,root_squash,no_wdelay,no_subtree_check,fsid=0 "$NETWORK:/mnt/export"
    rpc.mountd --no-udp --no-nfs-version 2 --no-nfs-version 3
    rpc.nfsd -N 3 -V 4 -U 8
    exportfs -v
    echo SERVER_READY
}

client() {
    modprobe -d /run/kernel -a nfsv4
    cd "$PROJECT" || exit 1
    HOME=/run TMPDIR=/mnt/tmp PYTHONDONTWRITEBYTECODE=1 "$PYTHON" -m tests.stage.nodes.agent "$ADDRESS" "$PORT"
    echo "AGENT_ENDED $?"
}

$ROLE
while :; do sleep 3600; done
