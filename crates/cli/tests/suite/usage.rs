//! `system df` and `system prune`.

use crate::coracle::Coracle;
use crate::layered::{Layout, Made};

/// The bytes that du(1) counts.
fn du(path: &std::path::Path) -> u64 {
    let out = std::process::Command::new("du").args(["-s", "-B1"]).arg(path).output().unwrap().stdout;
    String::from_utf8(out).unwrap().split('\t').next().unwrap().parse().unwrap()
}

fn lines(coracle: &Coracle, format: &str) -> Vec<String> {
    coracle.ok(&["system", "df", "--format", format]).lines().map(str::to_owned).collect()
}

#[test]
fn the_disk_is_measured_and_each_file_once() {
    let coracle = Coracle::with_busybox();
    let layout = Layout::new(coracle.directory().join("layout"));
    let large = "x".repeat(1_000_000);
    let base: &[(&str, &str)] = &[("base", &large)];
    layout.add("one", &Made { layers: &[base, &[("a", "a")]], ..Made::default() });
    layout.add("two", &Made { layers: &[base, &[("b", "b")]], ..Made::default() });
    let registry = layout.serve();
    for tag in ["one", "two"] {
        coracle.ok(&["pull", "-q", &format!("{}/app:{tag}", registry.host)]);
    }
    coracle.ok(&["run", "--name", "writer", "busybox", "sh", "-c", "head -c 2000000 /dev/zero > /file"]);
    let partial = coracle.root().join("image/partial/half");
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::fs::write(&partial, [7; 300_000]).unwrap();
    assert_eq!(
        lines(&coracle, "{{.Type}} {{.TotalCount}} {{.Active}}"),
        ["Images 3 1", "Containers 1 0", "Layers 4 1", "Blobs 10 -", "Partial Blobs 1 -", "Staging 0 0"]
    );
    let layers = coracle.root().join("image/layers");
    let all: u64 = std::fs::read_dir(&layers).unwrap().map(|entry| du(&entry.unwrap().path())).sum();
    let shown = coracle.ok(&["system", "df", "--format", "{{.Size}}"]);
    let millions = format!("{:.2}", all as f64 / 1e6);
    assert!(shown.starts_with(millions.trim_end_matches('0')), "{shown} {all}");
    let table = coracle.ok(&["system", "df"]);
    assert!(table.starts_with("TYPE            TOTAL   ACTIVE   SIZE "), "{table}");
    assert!(table.contains("(100%)"), "the container that has ended: {table}");
    let verbose = coracle.ok(&["system", "df", "-v"]);
    let image = verbose.lines().find(|line| line.contains(" one ")).unwrap();
    let cells: Vec<&str> = image.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert!(cells.contains(&"1.02MB") || cells.contains(&"1.01MB"), "the shared layer: {verbose}");
    assert!(
        verbose.contains("Images space usage:\n\nREPOSITORY") && verbose.contains("writer\n"),
        "{verbose}"
    );
    let asked = coracle.run(&["system", "prune"]);
    assert!(asked.code == 1 && asked.err.contains("blobs that came only in part\n"), "{asked:?}");
    assert_eq!(
        coracle.ok(&["system", "prune", "-f", "--filter", "label=x"]).lines().next(),
        Some("Deleted partial blobs: 1")
    );
    std::fs::write(&partial, [7; 300_000]).unwrap();
    let pruned = coracle.ok(&["system", "prune", "-af"]);
    assert!(pruned.starts_with("Deleted Containers:\n"), "{pruned}");
    assert!(
        pruned.contains("\n\nDeleted Images:\nuntagged: ") && pruned.contains("partial blobs: 1\n"),
        "{pruned}"
    );
    assert_eq!(
        lines(&coracle, "{{.Type}} {{.TotalCount}} {{.Size}}")[..3],
        ["Images 0 0B", "Containers 0 0B", "Layers 0 0B"]
    );
}
