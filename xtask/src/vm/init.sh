#!/bin/busybox sh
# The first program in the virtual machine: finds the disks and hands over to guest.sh on them.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do
    insmod "$module" || echo "cannot load $module"
done
# Disks are found in the background, after their driver is loaded.
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    [ -b /dev/vda ] && [ -b /dev/vdb ] && break
    sleep 0.2
done
mount -t ext4 -o user_xattr /dev/vda /disk && mkdir -p /disk/coracle && mount -t ext4 /dev/vdb /disk/coracle || poweroff -f
init=/coracle/guest.sh
if [ -d /disk/coracle/systemd ]; then
    # What is in /run before systemd stays, and its units there come before those on the disk.
    mount -t tmpfs -o mode=755 tmpfs /disk/run
    mkdir -p /disk/run/systemd/system
    cp /disk/coracle/systemd/*.service /disk/coracle/systemd/*.target /disk/run/systemd/system/
    while read -r unit; do
        ln -s /dev/null "/disk/run/systemd/system/$unit"
    done < /disk/coracle/systemd/masked
    init=/lib/systemd/systemd
fi
for directory in proc sys dev; do
    mount -o move "/$directory" "/disk/$directory"
done
exec switch_root /disk "$init"
