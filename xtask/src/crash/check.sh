# Looks at each disk as a power cut left it; sourced by guest.sh. They are one after the other on /dev/vdc. What is found is reported in
# lines that crash.rs judges.
suites() {
    local point output
    . /coracle/crash/layout
    modprobe loop
    mkdir -p /mnt/point
    echo $BASHPID > "$cgroups/system.slice/test.service/cgroup.procs"
    coracle() { /coracle/bin/coracle --root /mnt/point/root --state /run/crash "$@"; }
    for ((point = 0; point < POINTS; point++)); do
        if ! mount -t ext4 -o "loop,offset=$((point * DISK_BYTES)),sizelimit=$DISK_BYTES" /dev/vdc /mnt/point; then
            echo "@@ wrong $point the file system cannot be mounted"
            continue
        fi
        # The first command after the cut: it has to find its way by itself.
        coracle images --no-trunc --format "@@ found $point {{.Repository}}:{{.Tag}} {{.ID}}" ||
            echo "@@ wrong $point images failed"
        /coracle/bin/verify /mnt/point/root | sed "s/^/@@ wrong $point /"
        [ "${PIPESTATUS[0]}" = 0 ] || echo "@@ wrong $point verify failed"
        output=$(coracle load -q -i /coracle/images/again.tar 2>&1) ||
            echo "@@ wrong $point a load afterwards failed: ${output//$'\n'/ }"
        /coracle/bin/verify /mnt/point/root again | sed "s/^/@@ wrong $point afterwards: /"
        umount /mnt/point || echo "@@ wrong $point the file system is busy"
        echo "@@ checked $point"
    done
    echo "@@ done"
    sync
    echo o > /proc/sysrq-trigger
}
