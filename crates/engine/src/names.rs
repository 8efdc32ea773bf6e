//! Names for containers that were given none: boats and waters.

use std::sync::atomic::{AtomicU32, Ordering};

const LEFT: [&str; 64] = [
    "adrift",
    "amber",
    "anchored",
    "bold",
    "brackish",
    "breezy",
    "bright",
    "brisk",
    "buoyant",
    "calm",
    "clear",
    "coastal",
    "cool",
    "coral",
    "crested",
    "deep",
    "drifting",
    "eager",
    "ebbing",
    "fair",
    "fleet",
    "floating",
    "flowing",
    "foamy",
    "fresh",
    "gentle",
    "gliding",
    "glassy",
    "golden",
    "green",
    "hardy",
    "hidden",
    "humble",
    "keen",
    "lapping",
    "light",
    "limpid",
    "lively",
    "mellow",
    "misty",
    "moored",
    "narrow",
    "nimble",
    "northern",
    "patient",
    "placid",
    "quick",
    "quiet",
    "rippling",
    "rowing",
    "salty",
    "serene",
    "silver",
    "sheltered",
    "slender",
    "steady",
    "still",
    "sunny",
    "swift",
    "tidal",
    "upstream",
    "wandering",
    "wide",
    "windward",
];

const RIGHT: [&str; 64] = [
    "barge",
    "bay",
    "beck",
    "boatman",
    "bow",
    "brook",
    "canoe",
    "catamaran",
    "channel",
    "cog",
    "cove",
    "creek",
    "currach",
    "cutter",
    "delta",
    "dhow",
    "dinghy",
    "dory",
    "eddy",
    "estuary",
    "ferry",
    "fjord",
    "ford",
    "galley",
    "gig",
    "harbour",
    "hull",
    "inlet",
    "jetty",
    "junk",
    "kayak",
    "keel",
    "ketch",
    "lagoon",
    "lake",
    "launch",
    "loch",
    "lugger",
    "mast",
    "meander",
    "oar",
    "outrigger",
    "paddle",
    "pier",
    "pirogue",
    "pond",
    "punt",
    "quay",
    "raft",
    "rapids",
    "reach",
    "river",
    "rowboat",
    "rudder",
    "sail",
    "sampan",
    "schooner",
    "shoal",
    "skiff",
    "sloop",
    "spring",
    "strait",
    "tarn",
    "wherry",
];

/// A name of two words. When it is asked for again and again, most are taken: then a growing number follows them.
pub fn random() -> String {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    name(random_number(), asked)
}

fn name(number: u64, asked: u32) -> String {
    let (left, right) = (LEFT[(number % 64) as usize], RIGHT[(number / 64 % 64) as usize]);
    match asked {
        0..3 => format!("{left}_{right}"),
        _ => format!("{left}_{right}{}", (number >> 12) % 10_u64.pow(asked.min(12))),
    }
}

fn random_number() -> u64 {
    let mut bytes = [0; 8];
    // A name has to be free, not secret: without the kernel's randomness the time will do.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_nsec as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_that_may_be_given() {
        for number in 0..64 * 64 {
            let name = name(number, 0);
            assert_eq!(crate::options::container_name(&name).unwrap(), name);
        }
        assert!(name(5 << 12, 4).ends_with('5'));
    }

    #[test]
    fn no_word_is_there_twice() {
        for mut words in [LEFT.to_vec(), RIGHT.to_vec()] {
            words.sort_unstable();
            assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{words:?}");
        }
    }
}
