# What both boots of the virtual machine have in common: sourced by guest.sh and systemd/tests.sh, which define before
#   state                                      what a test must not leave behind, one line each, sorted
#   start PLACE DIRECTORY EXECUTABLE FILTER    runs one suite

suite() { # PLACE SUITE DIRECTORY EXECUTABLE FILTER: runs it, and reports in lines that start with @@ and that vm.rs reads
    local place=$1 suite=$2 status attempt left
    state > /run/before
    echo "@@ begin $place $suite"
    start "$place" "$3" "$4" "$5"
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

suites() { # MACHINE: runs those of /coracle/plan and turns the machine off
    local source target place suite directory executable filter
    chmod 1777 /tmp
    # The checkout and its binaries where cargo has them, for what a test binary remembers of its build.
    read -r source target < /coracle/paths
    # The target directory may lie in the checkout, so that one comes first.
    mkdir -p "$(dirname "$source")"
    [ -e "$source" ] || ln -s /coracle/source "$source"
    mkdir -p "$(dirname "$target")"
    [ -e "$target" ] || ln -s /coracle/bin "$target"

    echo "@@ machine $1, up for $(cut -d' ' -f1 /proc/uptime) s"
    while read -r place suite directory executable filter; do
        suite "$place" "$suite" "$directory" "$executable" "$filter" < /dev/null
    done < /coracle/plan
    echo "@@ done"
    sync
    echo o > /proc/sysrq-trigger
}
