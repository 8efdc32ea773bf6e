#!/bin/bash
# The virtual machine's pid 1 after init.sh: sets the machine up as systemd would, runs each suite of /coracle/plan and
# reports on the virtio port, in lines that start with @@ and that vm.rs reads.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# Not ignored, which all the tests would inherit.
trap : INT TERM HUP

for port in /dev/vport*; do exec > "$port" 2>&1; done

mkdir -p /dev/pts /dev/shm /dev/mqueue /run
mount -t devpts -o gid=5,mode=620,ptmxmode=000 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t securityfs securityfs /sys/kernel/security
mount -t tmpfs -o mode=755 tmpfs /run
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
ln -s pts/ptmx /dev/ptmx.pts
mount --make-rshared /
ip link set lo up
hostname -F /etc/hostname

# Control groups: version 2 only, every controller, the slices that systemd makes.
cgroups=/sys/fs/cgroup
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 "$cgroups"
controllers() { # GROUP...: hands all controllers on to the groups' children
    local group controller
    for group; do
        for controller in $(cat "$group/cgroup.controllers"); do
            echo "+$controller" > "$group/cgroup.subtree_control"
        done
    done
}
controllers "$cgroups"
mkdir -p "$cgroups/system.slice/test.service" "$cgroups/init.scope"
echo $$ > "$cgroups/init.scope/cgroup.procs"
controllers "$cgroups/system.slice"

delegate() { # UID: what systemd does for user@UID.service
    local slice="$cgroups/user.slice/user-$1.slice" file
    local service="$slice/user@$1.service"
    mkdir -p "$service"
    controllers "$cgroups/user.slice" "$slice" "$service"
    mkdir -p "$service/app.slice/test.scope"
    for group in "$service" "$service/app.slice" "$service/app.slice/test.scope"; do
        chown "$1:$1" "$group"
        while read -r file; do
            [ -e "$group/$file" ] && chown "$1:$1" "$group/$file"
        done < /sys/kernel/cgroup/delegate
    done
    mkdir -p "/run/user/$1"
    chown "$1:$1" "/run/user/$1"
    chmod 700 "/run/user/$1"
}
delegate 1000
delegate 1001

state() { # what a test must not leave behind, one line each, sorted; a fork costs a lot here, so there are few
    {
        sed -E 's/^[0-9]+ [0-9]+ [^ ]+ ([^ ]+) ([^ ]+) .*/mount \1 on \2/' /proc/self/mountinfo
        find "$cgroups" -name '*coracle*' -type d -printf 'control group %p\n'
        printf 'network link %s\n' /sys/class/net/*
        find /proc -mindepth 2 -maxdepth 2 -name exe -lname '/coracle/*' -printf 'process %h\n' 2> /dev/null
        # the monitor runs from a detached clone of its file, so only what it was called by is known
        grep -sazl '^coracle' /proc/[0-9]*/cmdline | sed 's/^/process /'
    } | sort
}

start() { # PLACE DIRECTORY EXECUTABLE FILTER
    local place=$1 directory=$2 executable=$3 filter=$4 group drop home
    local -a environment
    case "$place" in
        vm) group=$cgroups/system.slice/test.service home=/root drop= environment=() ;;
        vm-user) uid=1000 name=user ;;&
        vm-plain) uid=1001 name=plain ;;&
        vm-user|vm-plain)
            group=$cgroups/user.slice/user-$uid.slice/user@$uid.service/app.slice/test.scope
            home=/home/$name
            drop="setpriv --reuid=$uid --regid=$uid --init-groups --"
            environment=("XDG_RUNTIME_DIR=/run/user/$uid" "USER=$name") ;;
    esac
    (
        echo $BASHPID > "$group/cgroup.procs"
        cd "$directory" || exit 1
        # shellcheck disable=SC2086 # no user gives $drop and $filter
        exec env -i "PATH=$PATH" "LANG=$LANG" "HOME=$home" TERM=dumb RUST_BACKTRACE=1 CORACLE_TEST_VM=1 \
            CORACLE_TEST_BIN_DIR=/coracle/bin CORACLE_FIXTURES=/fixtures "${environment[@]}" \
            $drop "$executable" $filter --show-output < /dev/null
    )
}

. /coracle/suites.sh
suites "$(uname -r)"
sleep 60
