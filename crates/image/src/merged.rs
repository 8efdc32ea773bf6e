//! What layers are together: the files that a container of them sees, and what each layer did to those below it.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::inventory::{self, Content, Record};
use crate::store::Store;

/// A file that is seen, and the layer that it is of, counted from the bottom.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) record: Record,
    pub(crate) layer: usize,
}

/// The files by path, the root's path being empty.
pub(crate) type Files = BTreeMap<Vec<u8>, Node>;

/// What a layer does to the files below it.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    /// Files and directories of its own.
    pub(crate) files: usize,
    /// Files below that nobody sees any more because of it.
    pub(crate) covered: Vec<(Vec<u8>, Node)>,
}

/// Puts a layer on top.
pub(crate) fn add(files: &mut Files, layer: usize, inventory: &BTreeMap<Vec<u8>, Record>) -> Effect {
    let mut effect = Effect::default();
    // What it hides is below it, so that goes first.
    for (path, record) in inventory {
        let hides_below = match &record.content {
            Content::Directory(opaque) => *opaque,
            _ => true,
        };
        let is_directory = matches!(record.content, Content::Directory(_));
        if hides_below {
            take_below(files, path, &mut effect.covered);
        }
        let was_directory = |node: &Node| matches!(node.record.content, Content::Directory(_));
        if let Some(node) = files.get(path)
            && !(is_directory && was_directory(node))
            && let Some(node) = files.remove(path)
        {
            effect.covered.push((path.clone(), node));
        }
    }
    for (path, record) in inventory.iter().filter(|(_, record)| record.content != Content::Whiteout) {
        effect.files += 1;
        files.insert(path.clone(), Node { record: record.clone(), layer });
    }
    effect
}

/// Takes all that is below a directory.
fn take_below(files: &mut Files, path: &[u8], taken: &mut Vec<(Vec<u8>, Node)>) {
    let below: Vec<Vec<u8>> = below(files, path).map(|(path, _)| path.clone()).collect();
    for path in below {
        if let Some(node) = files.remove(&path) {
            taken.push((path, node));
        }
    }
}

/// All that is below a directory.
pub(crate) fn below<'a, T>(
    files: &'a BTreeMap<Vec<u8>, T>,
    path: &[u8],
) -> impl Iterator<Item = (&'a Vec<u8>, &'a T)> + use<'a, T> {
    use std::ops::Bound::{Excluded, Unbounded};
    // '0' is the byte after '/'.
    let (from, to) = match path {
        b"" => (Excluded(Vec::new()), Unbounded),
        path => (Excluded([path, b"/"].concat()), Excluded([path, b"0"].concat())),
    };
    files.range((from, to))
}

impl Store {
    /// The files that layers show together, bottom first.
    pub(crate) fn merged(&self, keys: &[String]) -> Result<Files> {
        let mut files = Files::new();
        for (at, key) in keys.iter().enumerate() {
            add(&mut files, at, &inventory::read(&self.layer_path(key).join("manifest"))?);
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn layer(files: &[(&str, Content)]) -> BTreeMap<Vec<u8>, Record> {
        let record = |content: &Content| Record { content: content.clone(), size: 1, ..Record::whiteout() };
        files.iter().map(|(path, content)| (path.as_bytes().to_vec(), record(content))).collect()
    }

    #[test]
    fn upper_layers_hide_lower_ones() {
        let file = || Content::File(Digest::of(b""));
        let directory = || Content::Directory(false);
        let mut files = Files::new();
        let bottom = [
            ("", directory()),
            ("a", directory()),
            ("a/x", file()),
            ("a-b", file()),
            ("b", directory()),
            ("b/y", file()),
            ("c", file()),
        ];
        add(&mut files, 0, &layer(&bottom));
        let top =
            [("a", Content::Whiteout), ("b", Content::Directory(true)), ("b/z", file()), ("c", directory())];
        let effect = add(&mut files, 1, &layer(&top));
        let seen: Vec<_> =
            files.iter().map(|(path, node)| (std::str::from_utf8(path).unwrap(), node.layer)).collect();
        assert_eq!(seen, [("", 0), ("a-b", 0), ("b", 1), ("b/z", 1), ("c", 1)]);
        let mut covered: Vec<_> =
            effect.covered.iter().map(|(path, _)| std::str::from_utf8(path).unwrap()).collect();
        covered.sort_unstable();
        assert_eq!((effect.files, covered), (3, vec!["a", "a/x", "b/y", "c"]));
    }
}
