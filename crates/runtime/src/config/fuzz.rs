//! What the fuzzer and the test of mutations try: a configuration damaged by bytes and by structure.

use serde_json::{Map, Value, json};

use super::{from_bytes, validate};

/// How many values [`damage`] knows; one number more takes the node out.
pub(super) const VALUES: usize = 14;

/// A step from a node to one below it.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Name(String),
    Place(usize),
}

/// Reads and checks a configuration. With an even first byte the rest is its text; else the configuration to begin with
/// is damaged in as many places as there are groups of three bytes. For fuzzing: it must not panic.
pub fn fuzz_config(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    if first % 2 == 0 {
        return read_and_check(rest);
    }
    let Ok(mut document) = serde_json::to_value(crate::template::default_spec(*first == 1)) else { return };
    for edit in rest.chunks_exact(3) {
        let nodes = nodes(&document);
        let place = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        damage(&mut document, &nodes[place % nodes.len()], usize::from(edit[2]) % (VALUES + 1));
    }
    read_and_check(document.to_string().as_bytes());
}

fn read_and_check(text: &[u8]) {
    if let Ok(spec) = from_bytes(text) {
        drop(validate(&spec));
    }
}

/// The ways to all nodes of a document; the first is the document itself.
pub(super) fn nodes(document: &Value) -> Vec<Vec<Step>> {
    let mut found = vec![Vec::new()];
    let mut add = |step: Step, value: &Value| {
        found.extend(nodes(value).into_iter().map(|below| [vec![step.clone()], below].concat()));
    };
    match document {
        Value::Object(map) => map.iter().for_each(|(name, value)| add(Step::Name(name.clone()), value)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(place, value)| add(Step::Place(place), value));
        }
        _ => {}
    }
    found
}

/// Puts another value in a node's place, or takes it out.
pub(super) fn damage(document: &mut Value, way: &[Step], number: usize) {
    let Some((last, before)) = way.split_last() else {
        *document = value(number);
        return;
    };
    let parent = before.iter().try_fold(document, |node, step| match step {
        Step::Name(name) => node.get_mut(name),
        Step::Place(place) => node.get_mut(*place),
    });
    match (parent, last) {
        (Some(Value::Object(map)), Step::Name(name)) if number == VALUES => drop(map.remove(name)),
        (Some(Value::Object(map)), Step::Name(name)) => drop(map.insert(name.clone(), value(number))),
        (Some(Value::Array(list)), Step::Place(place)) if *place < list.len() => match number {
            VALUES => drop(list.remove(*place)),
            _ => list[*place] = value(number),
        },
        _ => {}
    }
}

fn value(number: usize) -> Value {
    match number {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(i64::MIN),
        5 => json!(4_294_967_296_u64),
        6 => json!(1e300),
        7 => json!(""),
        8 => json!("x".repeat(5000)),
        9 => json!("/\u{0}\n/../\u{2028}"),
        10 => json!([]),
        11 => json!([null, "", 0, [], {}]),
        12 => Value::Object(Map::new()),
        _ => json!({ "": {}, "type": 1, "path": [], "x".repeat(300): null }),
    }
}
