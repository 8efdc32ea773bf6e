//! `images` and its filters, `history`, and the group `image`.

use serde_json::json;

use crate::coracle::Coracle;
use crate::images::refused;
use crate::layered::{Layout, Made};

/// Three images: one with two layers on top of the first, and one that no name means.
fn store(coracle: &Coracle) -> Layout {
    let layout = Layout::new(coracle.directory().join("layout"));
    let base: &[(&str, &str)] = &[("bin/", ""), ("etc/base", "base\n")];
    layout.add(
        "base",
        &Made {
            layers: &[base],
            history: Some(json!([
                { "created": "2020-01-01T00:00:00Z", "created_by": "ADD base" },
                { "created": "2020-01-01T00:00:01Z", "created_by": "CMD [\"sh\"]", "empty_layer": true },
            ])),
            created: "2020-01-01T00:00:01Z",
            ..Made::default()
        },
    );
    layout.add(
        "app",
        &Made {
            layers: &[base, &[("app/one", "1"), ("app/two", "22")]],
            history: Some(json!([
                { "created": "2020-01-01T00:00:00Z", "created_by": "ADD base" },
                { "created": "2020-01-01T00:00:01Z", "created_by": "CMD [\"sh\"]", "empty_layer": true },
                { "created": "2021-01-01T00:00:00Z", "comment": "by\thand",
                  "created_by": "RUN a command so long that no table has the room for it" },
            ])),
            config: Some(json!({ "Labels": { "kind": "app", "stage": "2" } })),
            created: "2021-01-01T00:00:00Z",
        },
    );
    layout.add("none", &Made { layers: &[&[("x", "")]], created: "2022-01-01T00:00:00Z", ..Made::default() });
    for tag in ["base", "app"] {
        coracle.ok(&["pull", "-q", &layout.source(tag)]);
    }
    coracle.ok(&["tag", "layout:app", "team/app:1"]);
    coracle.ok(&["pull", "-q", &layout.source("none")]);
    // Its only name goes to another image.
    coracle.ok(&["tag", "layout:base", "layout:none"]);
    layout
}

#[test]
fn a_history_names_each_step_and_the_layer_it_made() {
    let coracle = Coracle::new();
    store(&coracle);
    let id = coracle.ok(&["images", "-q", "layout:app"]);
    let list = coracle.ok(&["history", "layout:app"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("IMAGE ") && lines[0].ends_with("COMMENT"), "{list}");
    assert!(lines[1].starts_with(id.trim()) && lines[1].ends_with("by hand"), "{list}");
    assert!(lines[1].contains("RUN a command so long that no table has the … ") && lines[1].contains(" 3B "));
    assert!(
        lines[2].starts_with("<missing>") && lines[2].contains("CMD [\"sh\"]") && lines[2].contains(" 0B ")
    );
    assert!(lines[3].contains("ADD base") && lines[3].contains(" 5B "), "{list}");
    assert_eq!(lines.len(), 4);
    let whole = coracle.ok(&[
        "history",
        "--no-trunc",
        "--human=false",
        "--format",
        "{{.ID}}|{{.CreatedBy}}|{{.CreatedSince}}|{{.Size}}",
        "layout:app",
    ]);
    let first = whole.lines().next().unwrap();
    assert!(
        first.starts_with("sha256:")
            && first
                .ends_with("|RUN a command so long that no table has the room for it|2021-01-01T00:00:00Z|3"),
        "{whole}"
    );
    assert_eq!(coracle.ok(&["history", "-q", "layout:app"]), format!("{id}<missing>\n<missing>\n"));
    assert_eq!(coracle.ok(&["image", "history", "-q", "layout:app"]).lines().count(), 3);
    assert_eq!(
        coracle.ok(&["history", "--format", "table {{.Size}}\\t{{.CreatedBy}}", "layout:base"]),
        "SIZE   CREATED BY\n0B     CMD [\"sh\"]\n5B     ADD base\n"
    );
    refused(&coracle, &["history", "nothing"], "nothing");
    refused(&coracle, &["history", "host"], "built in");
}

#[test]
fn images_are_filtered_sorted_and_formatted() {
    let coracle = Coracle::new();
    store(&coracle);
    let names = |args: &[&str]| {
        let words = [&["images", "--format", "{{.Repository}}:{{.Tag}}"], args].concat();
        coracle.ok(&words).lines().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let all = "layout:app layout:base layout:none team/app:1 <none>:<none>";
    assert_eq!(names(&[]), all);
    assert_eq!(names(&["-a"]), all);
    assert_eq!(names(&["-f", "dangling=true"]), "<none>:<none>");
    assert_eq!(names(&["-f", "dangling=false", "--filter", "label=kind"]), "layout:app team/app:1");
    assert_eq!(names(&["-f", "label!=kind=app"]), "layout:base layout:none <none>:<none>");
    assert_eq!(names(&["-f", "reference=*:app", "-f", "reference=team/*"]), "layout:app team/app:1");
    assert_eq!(names(&["lay*"]), "layout:app layout:base layout:none");
    assert_eq!(names(&["layout:b?se"]), "layout:base");
    assert_eq!(names(&["-f", "before=layout:app"]), "layout:base layout:none");
    assert_eq!(names(&["-f", "since=layout:base"]), "layout:app team/app:1 <none>:<none>");
    assert_eq!(names(&["-f", "until=2020-06-01"]), "layout:base layout:none");
    assert_eq!(names(&["-f", "until=1h", "team/app"]), "team/app:1");
    assert_eq!(names(&["--sort", "created"]), "<none>:<none> layout:app team/app:1 layout:base layout:none");
    assert_eq!(names(&["--sort", "size"]).split(' ').next(), Some("layout:app"));
    let table = coracle.ok(&["image", "ls", "--format", "table {{.Tag}}\\t{{.Size}}", "team/app"]);
    assert_eq!(table, "TAG   SIZE\n1     8B\n");
    assert_eq!(coracle.ok(&["image", "list", "-q"]), coracle.ok(&["images", "-q"]));
    refused(&coracle, &["images", "-f", "colour=red"], "filters here: dangling");
    refused(&coracle, &["images", "-f", "until=soon"], "neither a time nor a duration");
    refused(&coracle, &["images", "-f", "dangling=maybe"], "neither true nor false");
    refused(&coracle, &["images", "-f", "before=nothing"], "nothing");
    refused(&coracle, &["images", "--format", "table {{.Colour}}"], "Colour");
}

#[test]
fn the_group_has_docker_s_names() {
    let coracle = Coracle::with_busybox();
    let id = coracle.ok(&["images", "-q", "--no-trunc"]);
    assert_eq!(coracle.ok(&["image", "inspect", "-f", "{{.Id}}", "busybox"]), id);
    coracle.ok(&["run", "--name", "busy", "busybox", "true"]);
    refused(&coracle, &["image", "inspect", "busy"], "no image named");
    coracle.ok(&["image", "tag", "busybox", "other"]);
    assert_eq!(coracle.ok(&["image", "rm", "other"]), "Untagged: other:latest\n");
    let ran = coracle.run(&["image", "frobnicate"]);
    assert!(ran.code == 125 && ran.err.contains("frobnicate"), "{ran:?}");
    assert!(coracle.run(&["image"]).err.contains("Usage: coracle image"));
}
