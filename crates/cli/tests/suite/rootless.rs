//! Containers of a user without rights. Root becomes such a user, one with subordinate ids, and runs the same test again; a user
//! runs it as the user that it is.

use std::path::PathBuf;
use std::process::Command;

use crate::coracle::{Coracle, binaries, fixture, is_root};

/// Copies `$2` (programs), `$3` (this test) and `$4` (an image) into `$1`, and runs test `$5` there as a user with a name and ids.
const BECOME_USER: &str = "\
mkdir \"$1/bin\" \"$1/home\" \"$1/run\"
cp \"$2/coracle\" \"$2/coracle-runtime\" \"$3\" \"$4\" \"$1/bin\"
chmod 700 \"$1/home\" \"$1/run\"
chown 64124:64124 \"$1/home\" \"$1/run\"
{ cat /etc/passwd; echo 'coracle-tester:x:64124:64124::/:/bin/sh'; } > \"$1/passwd\"
{ cat /etc/group; echo 'coracle-tester:x:64124:'; } > \"$1/group\"
echo 'coracle-tester:700000:65536' > \"$1/ids\"
touch /etc/subuid /etc/subgid
mount --bind \"$1/passwd\" /etc/passwd
mount --bind \"$1/group\" /etc/group
mount --bind \"$1/ids\" /etc/subuid
mount --bind \"$1/ids\" /etc/subgid
cd \"$1/home\"
export HOME=\"$1/home\" XDG_RUNTIME_DIR=\"$1/run\" CORACLE_TEST_BIN_DIR=\"$1/bin\" CORACLE_FIXTURES=\"$1/bin\"
exec setpriv --reuid=64124 --regid=64124 --clear-groups \"$1/bin/${3##*/}\" --exact \"$5\" --nocapture
";

/// A directory of root's, removed when the test ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `body` as a user; `test` is its own name.
#[track_caller]
fn as_user(test: &str, body: impl FnOnce(&Coracle)) {
    if !is_root() {
        return body(&Coracle::with_busybox());
    }
    let scratch = Scratch(PathBuf::from(format!("/var/tmp/coracle-test-{test}-{}", std::process::id())));
    std::fs::create_dir(&scratch.0).unwrap();
    let name = format!("rootless::{test}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", BECOME_USER, "sh"]);
    command.arg(&scratch.0).arg(binaries()).arg(std::env::current_exe().unwrap());
    let output = command.arg(fixture("busybox.docker.tar")).arg(name).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
}

/// Whether this user's containers have more than one id.
fn has_ids(coracle: &Coracle) -> bool {
    let map = coracle.ok(&["run", "--rm", "busybox", "cat", "/proc/self/uid_map"]);
    let size: u64 = map.split_whitespace().skip(2).step_by(3).map(|size| size.parse::<u64>().unwrap()).sum();
    size > 1
}

#[test]
fn the_user_is_root_inside_and_nobody_special_outside() {
    as_user("the_user_is_root_inside_and_nobody_special_outside", |coracle| {
        let script = "id -u; ls -lnd /bin | awk '{print $3}'; touch /mine; ls -ln /mine | awk '{print $3}'";
        assert_eq!(coracle.ok(&["run", "--rm", "busybox", "sh", "-c", script]), "0\n0\n0\n");
        let map = coracle.ok(&["run", "--rm", "busybox", "cat", "/proc/self/uid_map"]);
        let me = rustix::process::getuid().as_raw().to_string();
        assert_eq!(map.split_whitespace().take(3).collect::<Vec<_>>(), ["0", me.as_str(), "1"]);
        coracle.assert_nothing_left();
    });
}

#[test]
fn files_of_other_ids_go_with_the_container() {
    as_user("files_of_other_ids_go_with_the_container", |coracle| {
        let many = has_ids(coracle);
        let script = "mkdir -m 700 /deep && touch /deep/file && chown -R 7:8 /deep && ls -lnd /deep | awk '{print $3, $4}'";
        for keep in [false, true] {
            let mut args = vec!["run", "--name", "owner", "busybox", "sh", "-c", script];
            if !keep {
                args.insert(1, "--rm");
            }
            let ran = coracle.run(&args);
            if many {
                assert_eq!((ran.code, ran.out.as_str()), (0, "7 8\n"), "{ran:?}");
            } else {
                assert!(ran.code != 0 && ran.err.contains("Invalid argument"), "{ran:?}");
            }
            if keep {
                coracle.ok(&["rm", "owner"]);
            }
            coracle.assert_nothing_left();
        }
    });
}

#[test]
fn another_user_needs_ids() {
    as_user("another_user_needs_ids", |coracle| {
        let many = has_ids(coracle);
        let ran = coracle.run(&["run", "--rm", "-u", "12:13", "busybox", "sh", "-c", "id -u; id -g"]);
        if many {
            assert_eq!((ran.code, ran.out.as_str()), (0, "12\n13\n"), "{ran:?}");
        } else {
            assert_eq!((ran.code, ran.err.lines().count()), (125, 3), "{ran:?}");
            assert!(ran.err.contains("not mapped") && ran.err.contains("--add-subuids"), "{}", ran.err);
        }
        coracle.assert_nothing_left();
    });
}

#[test]
fn privileged_is_all_of_what_the_user_may() {
    as_user("privileged_is_all_of_what_the_user_may", |coracle| {
        let mount = "mkdir -p /m && mount -t tmpfs none /m && echo mounted";
        let privileged = ["run", "--rm", "--privileged", "busybox", "sh", "-c", mount];
        assert_eq!(coracle.ok(&privileged), "mounted\n");
        assert_ne!(coracle.run(&["run", "--rm", "busybox", "sh", "-c", mount]).code, 0);
        // Root of the user namespace is still not root of the machine.
        let device =
            coracle.run(&["run", "--rm", "--privileged", "busybox", "mknod", "/memory", "c", "1", "1"]);
        assert!(device.code != 0 && device.err.contains("not permitted"), "{device:?}");
        coracle.assert_nothing_left();
    });
}

#[test]
fn a_limit_is_enforced_or_refused() {
    as_user("a_limit_is_enforced_or_refused", |coracle| {
        let ran = coracle.run(&["run", "--rm", "--pids-limit", "20", "busybox", "echo", "limited"]);
        if ran.code == 0 {
            assert_eq!(ran.out, "limited\n");
        } else {
            assert_eq!((ran.code, ran.err.lines().count()), (125, 3), "{ran:?}");
            assert!(
                ran.err.contains("--pids-limit cannot be enforced") && ran.err.contains("delegate"),
                "{}",
                ran.err
            );
        }
        coracle.assert_nothing_left();
    });
}

#[test]
fn changes_have_their_owners() {
    as_user("changes_have_their_owners", |coracle| {
        let has_ids = has_ids(coracle);
        let own = if has_ids { "chown 33:34 /mine; " } else { "" };
        let script = format!("echo x > /mine; {own}rm /etc/group; rm -r /home; mkdir /home");
        let expected = "C /etc\nD /etc/group\nC /home\nD /home/alice\nA /mine\n";
        let mut options = vec![(&[][..], "plain")];
        if has_ids {
            options.push((&["--userns", "keep-id", "-u", "0"], "kept"));
        }
        for (options, name) in options {
            let words = [&["run", "--name", name], options, &["busybox", "sh", "-c", &script]].concat();
            coracle.ok(&words);
            assert_eq!(coracle.ok(&["diff", name]), expected);
            coracle.ok(&["commit", name, name]);
            let look = "stat -c %u:%g /mine /bin; ls /home; cat /mine; test ! -e /etc/group";
            let owner = if has_ids { "33:34" } else { "0:0" };
            assert_eq!(coracle.ok(&["run", "--rm", name, "sh", "-c", look]), format!("{owner}\n0:0\nx\n"));
            let archive = coracle.directory().join("flat.tar");
            coracle.ok(&["export", "-o", archive.to_str().unwrap(), name]);
            let list =
                Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&archive).output().unwrap().stdout;
            let list = String::from_utf8(list).unwrap();
            let mine = list.lines().find(|line| line.ends_with(" mine")).unwrap_or_else(|| panic!("{list}"));
            assert!(mine.contains(&owner.replace(':', "/")) && list.contains(" bin/busybox\n"), "{list}");
        }
        assert_eq!(coracle.ok(&["image", "verify"]), "");
        assert_eq!(coracle.ok(&["system", "check"]), "");
        assert!(coracle.ok(&["image", "explain", "plain"]).contains("2 layers"));
        assert!(coracle.ok(&["system", "df", "-v"]).contains("Containers space usage"));
        let refused = coracle.run(&["image", "mount", "busybox"]);
        assert!(refused.code == 1 && refused.err.contains("only root") && refused.err.lines().count() == 3);
        assert!(coracle.ok(&["system", "prune", "-af"]).contains("Deleted Containers:\n"));
        assert_eq!(coracle.ok(&["images", "-q"]), "");
        coracle.assert_nothing_left();
    });
}
