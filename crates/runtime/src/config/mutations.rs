//! What the fuzz target tries without end, in small: a damaged configuration is read without panic, and each error names its place.

use serde_json::Value;

use super::fuzz::{Step, VALUES, damage, nodes};
use super::{check, parse};

/// A way in the form in which errors have it: `linux.namespaces[2].type`.
fn path_of(way: &[Step]) -> String {
    let of = |step: &Step| match step {
        Step::Name(name) => format!(".{name}"),
        Step::Place(place) => format!("[{place}]"),
    };
    way.iter().map(of).collect::<String>().trim_start_matches('.').to_owned()
}

/// The names at the top of a configuration: with one of them begins each path in it.
const TOP: [&str; 9] =
    ["ociVersion", "root", "mounts", "process", "hostname", "domainname", "hooks", "annotations", "linux"];

/// What an error says, if it says at which path or at which byte.
fn is_placed(error: &str) -> bool {
    let Some(told) = error.strip_prefix("config.json: ") else { return false };
    let end = told.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(told.len());
    let has_byte = told.rsplit_once(" at line ").is_some_and(|(_, place)| place.contains(" column "));
    TOP.contains(&&told[..end]) || has_byte
}

/// Reads and checks; the error's text.
fn told(text: &[u8]) -> Option<String> {
    let read = parse("config.json", text).and_then(|spec| check(&spec));
    read.err().map(|error| error.to_string())
}

fn documents() -> [Value; 3] {
    let template = |rootless| serde_json::to_value(crate::template::default_spec(rootless)).unwrap();
    [template(false), template(true), crate::spec::tests::full()]
}

#[test]
fn of_each_node_are_refused_at_their_place_or_taken() {
    let (mut refused, mut taken, mut here) = (0, 0, 0);
    for document in documents() {
        let undamaged = told(document.to_string().as_bytes());
        for way in nodes(&document) {
            for number in 0..=VALUES {
                let mut damaged = document.clone();
                damage(&mut damaged, &way, number);
                let Some(error) = told(damaged.to_string().as_bytes()) else {
                    taken += 1;
                    continue;
                };
                refused += 1;
                let path = path_of(&way);
                assert!(is_placed(&error), "{path} with value {number}: {error}");
                here += usize::from(error.contains(&path) || Some(&error) == undamaged.as_ref());
                assert!(error.len() < 6500, "{path} with value {number}: {} bytes", error.len());
            }
        }
    }
    assert!(taken > 500 && refused > 2000 && here * 10 > refused * 9, "{taken}, {refused}, {here}");
}

#[test]
fn of_two_nodes_at_once_are_refused_at_a_place_or_taken() {
    let document = crate::spec::tests::full();
    let ways = nodes(&document);
    for (place, first) in ways.iter().enumerate() {
        for number in 0..=VALUES {
            let mut damaged = document.clone();
            damage(&mut damaged, &ways[(place * 31 + number * 7) % ways.len()], (number + place) % VALUES);
            damage(&mut damaged, first, number);
            if let Some(error) = told(damaged.to_string().as_bytes()) {
                assert!(is_placed(&error), "{}: {error}", path_of(first));
            }
        }
    }
}

#[test]
fn of_bytes_are_refused_at_their_place_or_taken() {
    for document in documents() {
        let text = document.to_string().into_bytes();
        for at in 0..text.len() {
            for change in 0..6 {
                let mut damaged = text.clone();
                match change {
                    0 => damaged[at] ^= 1 << (at % 8),
                    1 => damaged[at] = b"{}[]\",:0"[at % 8],
                    2 => damaged[at] = 0xff,
                    3 => damaged.truncate(at),
                    4 => drop(damaged.remove(at)),
                    _ => damaged.insert(at, b"\\\0\"9e-{["[at % 8]),
                }
                if let Some(error) = told(&damaged) {
                    assert!(is_placed(&error), "byte {at}, change {change}: {error}");
                }
            }
        }
    }
}

#[test]
fn of_depth_are_refused() {
    for text in [b"[".repeat(100_000), b"{\"linux\":".repeat(100_000), b"{\"a\":[".repeat(100_000)] {
        let error = told(&text).unwrap();
        assert!(is_placed(&error), "{error}");
    }
}
