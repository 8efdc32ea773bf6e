//! coracle's own profile, `coracle-default`: what docker-default allows and denies, rule by rule.
//!
//! The peers of the rule for signals are one more than docker's: the programs of coracle, where an administrator has profiles for them.

use std::fmt::Write as _;
use std::path::Path;

/// Where AppArmor's own files are that a profile includes.
const DIRECTORY: &str = "/etc/apparmor.d";

/// The rules. `$name` is the profile's name, `$caller` the profile of who runs containers.
///
/// Files are denied by their names, so the patterns have to say "all but": names are cut off at the first letters that differ. That some
/// names slip through (`/proc/bus`, `/proc/sys/kernel/s…`) is docker's, too, and is what its users rely on.
const RULES: &str = "
  # All that a user or a capability may do, but for the rest of this list.
  capability,
  file,
  network,

  # Mounts can be taken away, not made.
  umount,
  deny mount,

  # The kernel's own memory, and the keys that crash it.
  deny @{PROC}/{kcore,sysrq-trigger} rwklx,
  # The files of /proc that are of no process: those in it, those in its directories with names of one, two, three and more letters,
  deny @{PROC}/* w,
  deny @{PROC}/[^1-9/]/** w,
  deny @{PROC}/[^1-9/][^0-9/]/** w,
  deny @{PROC}/[^1-9s/][^0-9y/][^0-9s/]/** w,
  deny @{PROC}/[^1-9/][^0-9/][^0-9/][^0-9/]*/** w,
  # and the kernel's parameters, but for shared memory.
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w,

  # Firmware, energy counters that tell of others' secrets, the security modules' own files.
  deny /sys/{firmware,devices/virtual/powercap,kernel/security}/** rwklx,
  # All else of /sys, but for control groups.
  deny /sys/{[^f],f[^s]}*/** wklx,
  deny /sys/fs/{[^c],c[^g],cg[^r]}*/** wklx,

  # Processes of containers may look at each other and end each other; those outside and the runtimes may end them.
  ptrace (read, readby, trace, tracedby) peer=$name,
  signal (receive, send) peer=$name,
  signal (receive) peer={unconfined,coracle,coracle-runtime,crun,runc},
  signal (receive) peer=\"$caller\",
";

/// The profile for containers of a caller that itself has a profile, or is `unconfined`.
pub(super) struct Profile {
    /// Its name, which is another one for other rules: what another version of coracle has loaded stays as it is.
    pub name: String,
    rules: String,
}

impl Profile {
    pub fn of(caller: &str) -> Self {
        // What could mean something in a rule stands for any letter.
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:&".contains(letter);
        let caller: String = caller.chars().map(|c| if is_plain(c) { c } else { '?' }).collect();
        let rules = RULES.replace("$caller", &caller);
        let name = format!("{}-{:016x}", super::DEFAULT, fnv1a(&rules));
        Self { rules: rules.replace("$name", &name), name }
    }

    /// The text for apparmor_parser on this machine.
    pub fn text(&self) -> String {
        let has = |file: &str| Path::new(DIRECTORY).join(file).exists();
        self.text_with(has)
    }

    /// Versions differ in what rules mean that have no version, and have different files to include.
    fn text_with(&self, has: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        if has("abi/3.0") {
            text += "abi <abi/3.0>,\n";
        }
        text += if has("tunables/global") { "#include <tunables/global>\n" } else { "@{PROC}=/proc/\n" };
        let _ = writeln!(text, "profile {} flags=(attach_disconnected,mediate_deleted) {{", self.name);
        if has("abstractions/base") {
            text += "  #include <abstractions/base>\n";
        }
        text + &self.rules + "}\n"
    }
}

/// A text in 64 bits, well enough to tell versions apart: the function of Fowler, Noll and Vo.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_rules_have_another_name() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
        let (one, other) = (Profile::of("unconfined"), Profile::of("/usr/bin/ours"));
        assert_eq!(one.name, Profile::of("unconfined").name);
        assert_ne!(one.name, other.name);
        assert!(one.name.starts_with("coracle-default-") && one.name.len() == 32, "{}", one.name);
        assert!(other.rules.contains("peer=\"/usr/bin/ours\",\n"), "{}", other.rules);
        assert!(other.rules.contains(&format!("(receive, send) peer={},\n", other.name)), "{}", other.rules);
        let odd = Profile::of("a b\",\n capability x, \"[^");
        assert!(odd.rules.contains("peer=\"a?b????capability?x?????\",\n"), "{}", odd.rules);
    }

    #[test]
    fn only_what_is_there_is_included() {
        let profile = Profile::of("unconfined");
        let all = profile.text_with(|_| true);
        assert!(all.starts_with("abi <abi/3.0>,\n#include <tunables/global>\nprofile coracle-default-"));
        assert!(all.contains("{\n  #include <abstractions/base>\n") && all.ends_with("}\n"), "{all}");
        let none = profile.text_with(|_| false);
        assert!(none.starts_with("@{PROC}=/proc/\nprofile ") && !none.contains('<'), "{none}");
    }
}
