//! The built-in image `host`: the machine's programs are in it, the machine's secrets are not.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::coracle::{Coracle, Ran, binaries, is_root};

/// Plants the token `$1` all over the machine: in a mount namespace of its own, whose /etc and the like are union mounts of this
/// machine's with upper directories below `$2`, so that nothing has to be put back. Then runs what follows.
const PLANT_AS_ROOT: &str = r#"
set -eu
token=$1 base=$2
shift 2
for place in etc root home var opt srv mnt media boot tmp run; do
    [ -d /$place ] || continue
    mkdir -p "$base/upper/$place" "$base/work/$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$base/upper/$place,workdir=$base/work/$place" /$place
done
plant() { mkdir -p "${1%/*}"; printf '%s\n' "$token" >> "$1"; chmod "${2:-644}" "$1"; planted=$((planted + 1)); }
planted=0
plant /etc/shadow 640
plant /etc/passwd
plant /etc/group
plant /etc/environment
plant /etc/ssl/private/own.pem 600
plant /etc/ssl/openssl.cnf
plant /etc/ssh/ssh_host_ed25519_key 600
plant /etc/sudoers.d/own 440
plant /etc/profile.d/own.sh
plant /etc/alternatives/own
plant /etc/ld.so.conf.d/own.conf 600
plant /etc/ld.so.conf.d/own.conf.bak
plant /etc/nsswitch.conf
plant /root/.ssh/id_ed25519 600
plant /root/.bash_history 600
plant /home/somebody/.netrc 600
plant /var/lib/own/database
plant /var/log/own.log
plant /var/spool/cron/crontabs/root 600
plant /var/mail/own
plant /var/tmp/own
plant /tmp/own
plant /opt/own/config
plant /srv/own
plant /mnt/own
plant /media/own
plant /boot/own
plant /run/secrets/own
plant "$base/own"
mkdir -p /etc/ssl/certs /etc/alternatives
{ echo "$token"
  echo "-----BEGIN PRIVATE KEY-----"; echo "$token"; echo "-----END PRIVATE KEY-----"
  echo "-----BEGIN CERTIFICATE-----"; echo "MIIB"; echo "-----END CERTIFICATE-----"
} > /etc/ssl/certs/own.pem
ln -sf /root/.bash_history /etc/ssl/certs/linked.pem
ln -sf "/root/$token" /etc/alternatives/linked
[ $((planted + 3)) -ge 20 ]
exec "$@"
"#;

/// The same where an ordinary user can write.
const PLANT_AS_USER: &str = r#"
set -eu
token=$1 base=$2
shift 2
for file in "$HOME/.ssh/id_ed25519-$base" "$HOME/.netrc-$base" "$HOME/.config/own-$base" "/tmp/own-$base" "/var/tmp/own-$base" \
    "/dev/shm/own-$base" "${XDG_RUNTIME_DIR:-/tmp}/own-run-$base"; do
    mkdir -p "${file%/*}"
    printf '%s\n' "$token" > "$file"
    printf '%s\n' "$file" >> "$PLANTED"
done
exec "$@"
"#;

/// Looks for what it reads from standard input: in names, in files but those of /usr, in links, in processes' environments. A file
/// of its own proves that it finds.
const SEARCH: &str = r#"
read -r token
mkdir /opt/control && printf '%s\n' "$token" > /opt/control/found
find / \( -path /proc -o -path /sys \) -prune -o \( -name "*$token*" -o -lname "*$token*" \) -print
grep -rslF "$token" / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr
grep -slF "$token" /proc/[0-9]*/environ /proc/self/mountinfo
echo searched
"#;

/// Removes what a test made outside of its coracle's roots.
struct Planted {
    base: PathBuf,
    list: PathBuf,
}

impl Drop for Planted {
    fn drop(&mut self) {
        for file in std::fs::read_to_string(&self.list).unwrap_or_default().lines() {
            let _ = std::fs::remove_file(file);
        }
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

fn token() -> String {
    // Not written down anywhere, so that it cannot be found in this file either.
    format!("{:x}{:x}", std::process::id(), std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos())
}

#[test]
fn no_secret_of_the_machine_is_in_it() {
    let (coracle, token) = (Coracle::new(), token());
    let name = format!("coracle-secrets-{}", std::process::id());
    // Not below one of the directories that are covered, and in memory: the test's own roots are there too.
    let base = Path::new("/dev/shm").join(&name);
    let planted = Planted { base: base.clone(), list: coracle.directory().join("planted") };
    let (mut command, roots) = if is_root() {
        std::fs::create_dir(&base).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", PLANT_AS_ROOT, "sh", &token]);
        command.arg(&base);
        (command, base.join("coracle"))
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", PLANT_AS_USER, "sh", &token, &name]).env("PLANTED", &planted.list);
        (command, coracle.directory().to_owned())
    };
    command.arg(binaries().join("coracle")).arg("--root").arg(roots.join("root"));
    command.arg("--state").arg(roots.join("state")).args(["run", "--rm", "-i", "host", "sh", "-c", SEARCH]);
    command.env("SECRET", &token).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (0, "/opt/control/found\nsearched\n"), "{ran:?}");
}

#[test]
fn the_machines_programs_run_in_it() {
    let coracle = Coracle::new();
    let out = coracle.ok(&[
        "run",
        "--rm",
        "--name",
        "trial",
        "host",
        "sh",
        "-c",
        "echo $$; id -un; ls -A /home /root /srv; ls /usr | grep bin; stat -c %a /tmp",
    ]);
    let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["1", "root", "/home:", "/root:", "/srv:", "bin", "sbin", "1777"], "{out}");
    // Changes stay the container's own.
    assert_eq!(coracle.ok(&["run", "--rm", "host", "sh", "-c", "echo x > /usr/own && cat /usr/own"]), "x\n");
    assert!(!Path::new("/usr/own").exists());
    coracle.assert_nothing_left();
}

#[test]
fn it_is_built_in() {
    let coracle = Coracle::new();
    assert_eq!(coracle.ok(&["images", "-q"]), "");
    let id = coracle.ok(&["inspect", "--format", "{{.Id}}", "host"]);
    assert_eq!(coracle.ok(&["inspect", "--format", "{{.Id}}", "host"]), id, "nothing has changed");
    assert!(id.starts_with("sha256:"), "{id}");
    for verb in [&["rmi", "host"][..], &["tag", "host", "other"]] {
        let refused = coracle.run(verb);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("built in"), "{}", refused.err);
        assert_eq!(refused.err.lines().count(), 3, "{}", refused.err);
    }
    assert!(coracle.run(&["run", "--rm", "hots"]).err.contains("host"), "the nearest name is shown");
}
