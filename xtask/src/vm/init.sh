#!/bin/busybox sh
# The guest's first process. The root file system is this machine's, shared read-only; what is written to it lands in
# memory. $KEPT is the one folder that is written through.
for word in mount mkdir insmod mknod cp sh switch_root reboot; do /bin/busybox ln -s busybox /bin/$word; done
fail() { echo "guest: $*"; reboot -f; }
mkdir -p /proc /sys /dev /lower /memory /new
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod /modules/$module || fail "cannot load $module"; done </modules/order
share=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o ro,cache=loose,$share root /lower || fail "cannot mount the root file system"
mount -t tmpfs -o mode=755 memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work root /new || fail "cannot mount overlay"
mount --move /proc /new/proc
mount --move /sys /new/sys
mount --move /dev /new/dev
mount -t tmpfs -o mode=755 run /new/run
mkdir /new/run/vm
mount -t 9p -o cache=none,$share kept /new/run/vm || fail "cannot mount the folder to write to"
cp /bin/busybox /new/run/busybox
exec switch_root /new /run/busybox sh /run/vm/guest.sh
