//! `image explain`, `tree`, `diff` and `mount`.

use serde_json::json;

use crate::coracle::{Coracle, is_root};
use crate::images::refused;
use crate::layered::{Layout, Made};

/// A base, an image on it that hides some of it, and another one on the base.
fn store(coracle: &Coracle) {
    let layout = Layout::new(coracle.directory().join("layout"));
    let (large, small) = ("x".repeat(8000), "y".repeat(2000));
    let base: &[(&str, &str)] =
        &[("etc/kept", &small), ("opt/gone/a", &large), ("opt/gone/b", &small), ("etc/mode", "1")];
    let history = json!([{ "created_by": "/bin/sh -c #(nop) ADD base" }, { "created_by": "CMD x", "empty_layer": true },
        { "created_by": "RUN a command that is far too long for a line of the picture, which has eighty letters" }]);
    let top: &[(&str, &str)] = &[("opt/.wh.gone", ""), ("etc/mode", "2"), ("new/file", &small)];
    layout.add("base", &Made { layers: &[base], ..Made::default() });
    layout.add("app", &Made { layers: &[base, top], history: Some(history), ..Made::default() });
    layout.add("other", &Made { layers: &[base, &[("more", "")]], ..Made::default() });
    for tag in ["base", "app", "other"] {
        coracle.ok(&["pull", "-q", &layout.source(tag)]);
    }
}

fn in_letters(coracle: &Coracle, locale: &str, args: &[&str]) -> String {
    let output = coracle.command(args).env("LC_ALL", locale).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_picture_of_the_layers() {
    let coracle = Coracle::new();
    store(&coracle);
    let picture = in_letters(&coracle, "C", &["image", "explain", "layout:app"]);
    let id = coracle.ok(&["images", "-q", "layout:app"]);
    let expected = format!(
        "layout:app ({}): 14kB in 2 layers, 12kB shared, 10kB wasted\n\n        SIZE    FILES   WASTED                            MADE BY\n  \
  2      2kB        6       0B  ####....................  RUN a command that is.\n  \
  1     12kB        8     10kB  ####xxxxxxxxxxxxxxxxxxxx  ADD base\n     shared with layout:base, layout:other\n     \
wastes 8kB for /opt/gone/a\n     wastes 2kB for /opt/gone/b\n     wastes 1B for /etc/mode\n\n\
# seen   x wasted: deleted or overwritten above\n",
        id.trim()
    );
    assert_eq!(picture, expected);
    let unicode = in_letters(&coracle, "C.UTF-8", &["image", "explain", "layout:app"]);
    assert_eq!(unicode.replace('█', "#").replace('▒', "x").replace(['·', '…'], "."), picture);
    assert!(unicode.lines().all(|line| line.chars().count() <= 80), "{unicode}");
    let value: serde_json::Value =
        serde_json::from_str(&coracle.ok(&["image", "explain", "--format", "json", "layout:app"])).unwrap();
    assert_eq!((&value["Wasted"], &value["Layers"][0]["Wasted"]), (&json!(10_001), &json!(10_001)));
    assert_eq!(value["Layers"][0]["SharedWith"], json!(["layout:base", "layout:other"]));
    refused(&coracle, &["image", "explain", "nothing"], "nothing");
    refused(&coracle, &["image", "explain", "host"], "built in");
}

#[test]
fn images_are_a_tree_of_layers() {
    let coracle = Coracle::new();
    store(&coracle);
    let layers = |name: &str| -> Vec<String> {
        let text = coracle.ok(&["inspect", "-f", "{{json .RootFS.Layers}}", name]);
        let all: Vec<String> = serde_json::from_str(&text).unwrap();
        all.iter().map(|digest| digest["sha256:".len()..][..12].to_owned()).collect()
    };
    let tree = in_letters(&coracle, "C", &["image", "tree"]);
    let (app, other) = (&layers("layout:app")[1], &layers("layout:other")[1]);
    let lines: Vec<&str> = tree.lines().collect();
    assert_eq!(lines[0], format!("{}  12kB in 1 layer  [layout:base]", layers("layout:base")[0]));
    let mut below = vec![
        format!("{app}  2kB in 1 layer  [layout:app]"),
        format!("{other}  0B in 1 layer  [layout:other]"),
    ];
    let mut shown: Vec<String> = lines[1..].iter().map(|line| line[3..].to_owned()).collect();
    below.sort();
    shown.sort();
    assert_eq!(shown, below);
    assert!(lines[1].starts_with("|- ") && lines[2].starts_with("`- "), "{tree}");
    assert!(in_letters(&coracle, "en_US.UTF-8", &["image", "tree"]).contains("\n└─ "));
    assert_eq!(coracle.ok(&["rmi", "layout:base"]).lines().count(), 2);
    let tree = in_letters(&coracle, "C", &["image", "tree"]);
    assert!(tree.lines().next().unwrap().ends_with("12kB in 1 layer"), "{tree}");
}

#[test]
fn images_are_compared() {
    let coracle = Coracle::new();
    store(&coracle);
    let ran = coracle.run(&["image", "diff", "layout:app"]);
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        ("C /etc/mode\nA /new\nA /new/file\nD /opt/gone\n", "Compared with layout:base.\n")
    );
    let back = coracle.ok(&["image", "diff", "layout:base", "layout:app"]);
    assert_eq!(back, "C /etc/mode\nD /new\nA /opt/gone\nA /opt/gone/a\nA /opt/gone/b\n");
    let json = coracle.ok(&["image", "diff", "--format", "json", "layout:other", "layout:base"]);
    assert_eq!(json, "{\"added\":[\"/more\"],\"changed\":[],\"deleted\":[]}\n");
    assert_eq!(coracle.ok(&["image", "diff", "layout:app", "layout:app"]), "");
    refused(&coracle, &["image", "diff", "layout:app", "nothing"], "nothing");
}

#[test]
fn images_are_mounted_to_look_into() {
    let coracle = Coracle::new();
    store(&coracle);
    if !is_root() {
        refused(&coracle, &["image", "mount", "layout:app"], "only root");
        return;
    }
    for name in ["layout:app", "layout:base"] {
        let path = coracle.ok(&["image", "mount", name]);
        assert_eq!(coracle.ok(&["image", "mount", name]), path, "once is enough");
        let path = std::path::Path::new(path.trim());
        assert_eq!(std::fs::read_to_string(path.join("etc/kept")).unwrap().len(), 2000);
        assert_eq!(path.join("opt/gone").exists(), name == "layout:base");
        let error = std::fs::write(path.join("etc/new"), "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(coracle.ok(&["image", "mount"]), format!("{name} {}\n", path.display()));
        refused(&coracle, &["rmi", name], "used by");
        assert!(!coracle.ok(&["image", "prune", "-af", "--filter", "label=none"]).contains("deleted"));
        assert_eq!(
            coracle.ok(&["image", "unmount", name]).trim(),
            path.file_name().unwrap().to_str().unwrap()
        );
        assert!(!path.exists());
        refused(&coracle, &["image", "unmount", name], "not mounted");
    }
    coracle.ok(&["image", "mount", "layout:app", "layout:base"]);
    assert_eq!(coracle.ok(&["image", "umount", "--all"]).lines().count(), 2);
    assert_eq!(coracle.ok(&["image", "mount"]), "");
    refused(&coracle, &["image", "mount", "host"], "built in");
    coracle.assert_nothing_left();
}
