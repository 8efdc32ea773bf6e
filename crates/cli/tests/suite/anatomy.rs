//! `anatomy`: what it says of a running container is what the kernel says.

use crate::coracle::{Coracle, is_root};
use crate::running::Running;

#[test]
fn shows_what_a_running_container_is_made_of() {
    let coracle = Coracle::with_busybox();
    let limits: &[&str] = if is_root() { &["--pids-limit", "20", "--memory", "50m"] } else { &[] };
    let options =
        [&["--name", "patient", "--network", "none", "--uts", "host", "--read-only"], limits, &["busybox"]];
    let running = Running::start(&coracle, &options.concat());
    let page = coracle.ok(&["anatomy", "patient"]);
    for (kind, whose) in
        [("pid", "its own"), ("mnt", "its own"), ("net", "its own"), ("uts", "shared with you")]
    {
        let link = std::fs::read_link(format!("/proc/{}/ns/{kind}", running.pid)).unwrap();
        let inode = link.to_str().unwrap().split(['[', ']']).nth(1).unwrap().to_owned();
        let line = page.lines().find(|line| line.trim_start().starts_with(&format!("{kind} "))).unwrap();
        assert!(line.contains(&inode) && line.ends_with(whose), "{page}");
    }
    assert!(page.contains("overlay (ro, ") && page.contains("upperdir="), "{page}");
    assert!(page.contains(&format!("process {}", running.pid)) && page.contains("1 inside: sh"), "{page}");
    assert!(page.contains("CHOWN") && page.contains("those that a filter lets through"), "{page}");
    if is_root() {
        assert!(page.contains(" of 20\n") && page.contains(" of 52.4MB\n"), "{page}");
    }
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(110), "{widest:?}: {page}");
    assert_eq!(running.end(), 0);
    let ran = coracle.run(&["anatomy", "patient"]);
    assert!(ran.code != 0 && ran.err.contains("patient"), "{ran:?}");
}
