#!/bin/bash
# Runs each suite of /coracle/plan where systemd is pid 1, and reports on the virtio port in lines that start with @@ and that vm.rs
# reads.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

for port in /dev/vport*; do exec > "$port" 2>&1; done

# What is left in a session is killed with it, and the user's systemd ends soon after the last one, so that it is not taken for a leak.
mkdir -p /run/systemd/logind.conf.d
printf '[Login]\nKillUserProcesses=yes\nUserStopDelaySec=3s\n' > /run/systemd/logind.conf.d/kill.conf
# A user's systemd without a login, as an administrator has it started.
loginctl enable-linger user && systemctl start user@1000.service || echo "no systemd for the user: $(systemctl status user@1000.service)"

state() { # what a test must not leave behind, one line each, sorted
    {
        sed -E 's/^[0-9]+ [0-9]+ [^ ]+ ([^ ]+) ([^ ]+) .*/mount \1 on \2/' /proc/self/mountinfo
        find /sys/fs/cgroup -name '*coracle*' -type d -printf 'control group %p\n'
        grep -sazl '^coracle' /proc/[0-9]*/cmdline | sed 's/^/process /'
    } | sort
}

start() { # PLACE DIRECTORY EXECUTABLE FILTER
    local place=$1 directory=$2 executable=$3 filter=$4
    local -a environment command
    environment=("PATH=$PATH" "LANG=$LANG" TERM=dumb RUST_BACKTRACE=1 CORACLE_TEST_VM=1 CORACLE_TEST_SYSTEMD=1
        CORACLE_TEST_BIN_DIR=/coracle/bin CORACLE_FIXTURES=/fixtures)
    case "$place" in
        vm-systemd) environment+=(HOME=/root) command=() ;;
        vm-systemd-user)
            environment+=(HOME=/home/user USER=user XDG_RUNTIME_DIR=/run/user/1000)
            # where logind puts a login over the network: beside the user's systemd, not below it
            command=(systemd-run --quiet --scope --unit=session-test.scope --slice=user-1000.slice --
                setpriv --reuid=1000 --regid=1000 --init-groups --) ;;
    esac
    # shellcheck disable=SC2086 # a filter may be several words
    (cd "$directory" && exec env -i "${environment[@]}" "${command[@]}" "$executable" $filter --show-output < /dev/null)
}

. /coracle/suites.sh
suites "$(uname -r), $(systemctl --version | head -1)"
