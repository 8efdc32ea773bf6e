//! What a process of the container may do.

use serde_json::json;

use crate::bundle::{Bundle, Ran, State};
use crate::under_test::program;

const SHOW: [&str; 3] = ["/bin/grep", "CapInh", "/proc/self/status"];
const NONE: &str = "CapInh:\t0000000000000000\n";

fn running(bundle: &mut Bundle) {
    bundle.capabilities(&["CAP_CHOWN", "CAP_NET_RAW"]);
    bundle.bring(State::Running);
}

/// `exec --cap` gave capabilities as inheritable: any program with the like in its file had them then.
#[test]
fn cve_2022_29162() {
    let mut bundle = bundle!();
    running(&mut bundle);
    let args = [&["exec", "--cap", "CAP_NET_ADMIN", "{id}"], &SHOW[..]].concat();
    assert_eq!(bundle.ok(&args), NONE);
}

/// A program that was executed kept the inheritable capabilities of whoever asked for it.
#[test]
fn cve_2022_27650() {
    let mut bundle = bundle!();
    running(&mut bundle);
    let id = bundle.id.clone();
    let state = bundle.state_root().to_str().unwrap().to_owned();
    let with_inheritable = |args: &[&str]| -> Ran {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--inh-caps", "+net_raw,+chown"]).arg(program()).args(["--root", &state]).args(args);
        command.stdin(std::process::Stdio::null());
        bundle.finish(command)
    };
    let ran = with_inheritable(&[&["exec", &id], &SHOW[..]].concat());
    assert_eq!(ran.out, NONE, "{ran:?}");
    let mut other = Bundle::new();
    other.capabilities(&["CAP_CHOWN"]).set("/process/args", json!(SHOW));
    other.write_config();
    let directory = other.directory().to_str().unwrap().to_owned();
    let ran = with_inheritable(&["run", "--bundle", &directory, &other.id]);
    assert_eq!(ran.out, NONE, "{ran:?}");
}
