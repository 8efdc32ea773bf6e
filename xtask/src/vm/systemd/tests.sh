#!/bin/bash
# Runs each suite of /coracle/plan where systemd is pid 1, and reports on the virtio port in lines that start with @@ and that vm.rs
# reads.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

for port in /dev/vport*; do exec > "$port" 2>&1; done

# A user's systemd without a login, as an administrator has it started. The PAM module that names its directory is not installed.
mkdir -p /run/systemd/system/user@.service.d
printf '[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\n' > /run/systemd/system/user@.service.d/directory.conf
loginctl enable-linger user && systemctl start user@1000.service || echo "no systemd for the user: $(systemctl status user@1000.service)"

state() { # what a test must not leave behind, one line each, sorted
    {
        sed -E 's/^[0-9]+ [0-9]+ [^ ]+ ([^ ]+) ([^ ]+) .*/mount \1 on \2/' /proc/self/mountinfo
        find /sys/fs/cgroup -name '*coracle*' -type d -printf 'control group %p\n'
        grep -sazl '^coracle' /proc/[0-9]*/cmdline | sed 's/^/process /'
    } | sort
}

suite() { # PLACE SUITE DIRECTORY EXECUTABLE FILTER
    local place=$1 suite=$2 directory=$3 executable=$4 filter=$5 status attempt left
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
    state > /run/before
    echo "@@ begin $place $suite"
    # shellcheck disable=SC2086 # a filter may be several words
    (cd "$directory" && exec env -i "${environment[@]}" "${command[@]}" "$executable" $filter --show-output < /dev/null)
    status=$?
    # what systemd and the kernel undo in the background may take a moment
    for attempt in {1..20}; do
        state > /run/after
        left=$(comm -13 /run/before /run/after)
        [ -z "$left" ] && break
        sleep 0.5
    done
    echo "@@ end $place $suite $status"
    if [ -n "$left" ]; then printf '%s\n' "$left" | sed "s,^,@@ leak $place $suite ,"; fi
}

chmod 1777 /tmp
# The checkout and its binaries where cargo has them, for what a test binary remembers of its build.
read -r source target < /coracle/paths
mkdir -p "$(dirname "$source")"
[ -e "$source" ] || ln -s /coracle/source "$source"
mkdir -p "$(dirname "$target")"
[ -e "$target" ] || ln -s /coracle/bin "$target"

echo "@@ machine $(uname -r), $(systemctl --version | head -1), up for $(cut -d' ' -f1 /proc/uptime) s"
while read -r place suite directory executable filter; do
    suite "$place" "$suite" "$directory" "$executable" "$filter" < /dev/null
done < /coracle/plan
echo "@@ done"
sync
echo o > /proc/sysrq-trigger
