# What runs while the disk's writes are recorded; sourced by guest.sh. /coracle/crash/disks has a line for each disk: DEVICE PROGRAM; the
# commands are those of /coracle/crash/commands. After each one the disk gets a mark, in a sector behind its file system, so that the
# log orders the command's end among the writes, and the report says which images there are then.
record() { # NUMBER DEVICE PROGRAM
    local number=$1 device=$2 program=$3 step=0 command output
    echo $BASHPID > "$cgroups/system.slice/test.service/cgroup.procs"
    mkdir -p "/mnt/$number"
    mount -t ext4 "$device" "/mnt/$number" || return
    coracle() { "$program" --root "/mnt/$number/root" --state "/run/crash/$number" "$@"; }
    while read -r command; do
        # shellcheck disable=SC2086 # these are words
        output=$(coracle $command 2>&1) || echo "@@ failed $number $command: ${output//$'\n'/ }"
        printf 'coracle mark %s\n' "$step" |
            dd of="$device" bs=512 seek="$MARK_SECTOR" conv=sync,notrunc oflag=direct status=none
        echo "@@ step $number $step"
        coracle images --no-trunc --format "@@ state $number $step {{.Repository}}:{{.Tag}} {{.ID}}"
        step=$((step + 1))
    done < /coracle/crash/commands
    umount "/mnt/$number"
}

suites() {
    local number=0 device program
    . /coracle/crash/layout
    while read -r device program; do
        (record "$number" "$device" "$program") < /dev/null
        number=$((number + 1))
    done < /coracle/crash/disks
    echo "@@ done"
    sync
    echo o > /proc/sysrq-trigger
}
