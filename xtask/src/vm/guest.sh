# The guest's first process, once the root file system is there: mounts, modules, then the command.
. /run/vm/settings.sh
busybox() { /run/busybox "$@"; }

busybox mkdir -p "/lib/modules/$RELEASE"
busybox mount -t 9p -o ro,cache=loose,trans=virtio,version=9p2000.L,msize=262144 modules "/lib/modules/$RELEASE"
# The kernel asks for its modules by this program; the machine whose root this is may have none.
busybox ln -s busybox /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
busybox mkdir -p /dev/pts /dev/shm /run/lock
busybox mount -t devpts devpts /dev/pts
busybox mount -t tmpfs shm /dev/shm
busybox mount -t bpf bpf /sys/fs/bpf
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mount -t debugfs debugfs /sys/kernel/debug
busybox mount -t tracefs tracefs /sys/kernel/tracing
for file in /sys/bus/pci/devices/*/modalias /sys/bus/virtio/devices/*/modalias; do
    read -r alias <"$file" && busybox modprobe -q "$alias"
done 2>/dev/null
busybox ip link set lo up
busybox hostname "vm-$NAME"
export PATH HOME=/root TERM=${TERM:-dumb}

echo "guest: $NAME is up after $(busybox cut -d' ' -f1 /proc/uptime) s"
# Whatever hangs, the guest ends.
(busybox sleep "$SECONDS_AT_MOST"; echo "guest: time is up"; busybox reboot -f) &
cd "$DIRECTORY" 2>/dev/null || cd /
if [ -n "$SHELL_WANTED" ]; then
    exec </dev/console >/dev/console 2>&1
    busybox setsid busybox cttyhack "$(command -v bash || echo /bin/sh)"
    echo 0 >/run/vm/status
else
    # Not busybox's shell, which takes its own `ip` and the like for those of the machine.
    /bin/sh /run/vm/command.sh >/run/vm/output 2>&1 </dev/null
    echo $? >/run/vm/status
fi
busybox dmesg >/run/vm/dmesg 2>/dev/null
busybox sync
busybox reboot -f
