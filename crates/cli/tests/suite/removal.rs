//! `rmi` beside pulls and containers: it takes nothing away that is in use, and waits for nobody.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image::Digest;
use serde_json::json;

use crate::coracle::Coracle;
use crate::registry::{Answer, Asked, Fake, layer, manifest};

/// Images that share busybox's layer and have one of their own, with a file that says which: `HOST/0`, `HOST/1`, …
struct Shop {
    registry: Fake,
    /// Layers that are held back: all from this number on.
    closed_from: Arc<AtomicUsize>,
}

/// An image as the registry has it.
struct Offer {
    manifest: Vec<u8>,
    blobs: BTreeMap<String, Vec<u8>>,
    own_layer: String,
}

impl Offer {
    fn new(directory: &std::path::Path, number: usize) -> Self {
        let base: serde_json::Value = serde_json::from_slice(&manifest()).unwrap();
        let tree = directory.join(format!("own-{number}"));
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("own"), number.to_string()).unwrap();
        let tar = Command::new("tar").arg("-C").arg(&tree).args(["-cf", "-", "own"]).output().unwrap().stdout;
        let config = crate::registry::blob(base["config"]["digest"].as_str().unwrap());
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let own_layer = Digest::of(&tar).to_string();
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(own_layer));
        let config = config.to_string().into_bytes();
        let mut layers = base["layers"].as_array().unwrap().clone();
        layers.push(json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": own_layer, "size": tar.len(),
        }));
        let id = Digest::of(&config).to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": id, "size": config.len()},
            "layers": layers,
        });
        let blobs = BTreeMap::from([(id, config), (own_layer.clone(), tar)]);
        Self { manifest: manifest.to_string().into_bytes(), blobs, own_layer }
    }
}

impl Shop {
    fn open(coracle: &Coracle, count: usize) -> Self {
        let offers: Vec<Offer> = (0..count).map(|number| Offer::new(coracle.directory(), number)).collect();
        let closed_from = Arc::new(AtomicUsize::new(count));
        let closed = Arc::clone(&closed_from);
        let registry = Fake::start(move |asked: &Asked| {
            let mut words = asked.path.trim_start_matches("/v2/").split('/');
            let Some(number) = words.next().and_then(|name| name.parse::<usize>().ok()) else {
                return Answer::Honest;
            };
            let offer = &offers[number];
            let last = words.next_back().unwrap_or_default();
            if last == "latest" {
                let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
                return Answer::Other(200, vec![("Content-Type", kind)], offer.manifest.clone());
            }
            while last == offer.own_layer && number >= closed.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            match offer.blobs.get(last) {
                Some(bytes) => Answer::Other(200, Vec::new(), bytes.clone()),
                None => Answer::Honest,
            }
        });
        Self { registry, closed_from }
    }

    fn image(&self, number: usize) -> String {
        format!("{}/{number}", self.registry.host)
    }

    /// Begins to pull an image whose own layer is held back, and returns when that is all that is missing.
    fn stalled_pull(&self, coracle: &Coracle, number: usize) -> Child {
        self.closed_from.store(number, Ordering::Relaxed);
        let pull = coracle.command(&["pull", "-q", &self.image(number)]).spawn().unwrap();
        let start = Instant::now();
        // Manifest, configuration, and the layer.
        while self
            .registry
            .asked("")
            .iter()
            .filter(|asked| asked.path.starts_with(&format!("/v2/{number}/")))
            .count()
            < 3
        {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not ask");
            std::thread::sleep(Duration::from_millis(10));
        }
        pull
    }
}

fn layers(coracle: &Coracle) -> usize {
    std::fs::read_dir(coracle.root().join("image/layers")).unwrap().count()
}

#[test]
fn a_removal_waits_for_no_pull_and_leaves_what_that_counts_on() {
    let coracle = Coracle::new();
    let shop = Shop::open(&coracle, 2);
    coracle.ok(&["pull", "-q", &shop.image(0)]);
    assert_eq!(layers(&coracle), 2);
    let mut pull = shop.stalled_pull(&coracle, 1);
    coracle.ok(&["rmi", &shop.image(0)]);
    assert!(pull.try_wait().unwrap().is_none(), "the pull goes on");
    assert_eq!(layers(&coracle), 1, "what both share");
    shop.closed_from.store(9, Ordering::Relaxed);
    assert!(pull.wait().unwrap().success());
    assert_eq!(shop.registry.asked(&layer().0).len(), 1, "the shared layer was not fetched again");
    assert_eq!(coracle.ok(&["run", "--rm", &shop.image(1), "cat", "/own"]), "1");
    coracle.ok(&["rmi", &shop.image(1)]);
    assert_eq!(layers(&coracle), 0);
}

#[test]
fn what_was_left_for_a_pull_that_fails_goes_with_it() {
    for how in ["killed", "interrupted"] {
        let coracle = Coracle::new();
        let shop = Shop::open(&coracle, 2);
        coracle.ok(&["pull", "-q", &shop.image(0)]);
        let mut pull = shop.stalled_pull(&coracle, 1);
        coracle.ok(&["rmi", &shop.image(0)]);
        assert_eq!(layers(&coracle), 1);
        if how == "killed" {
            pull.kill().unwrap();
        } else {
            let pid = rustix::process::Pid::from_child(&pull);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        }
        assert!(!pull.wait().unwrap().success());
        // A second process may do the work, and ends when it learns that the first is gone.
        let start = Instant::now();
        while layers(&coracle) > 0 && start.elapsed() < Duration::from_secs(20) {
            assert_eq!(coracle.ok(&["images", "-q"]), "");
        }
        assert_eq!(layers(&coracle), 0, "{how}");
    }
}

#[test]
fn removals_in_a_loop_take_nothing_from_pulls_and_containers() {
    const PULLS: usize = 8;
    let rounds = if std::env::var_os("CORACLE_TEST_VM").is_some() { 1 } else { 8 };
    let coracle = Coracle::new();
    let shop = Shop::open(&coracle, PULLS + 1);
    let used = shop.image(PULLS);
    coracle.ok(&["pull", "-q", &used]);
    let watch = "while sleep 0.2; do [ $(cat /own) = 8 ] || exit 7; done";
    let mut container =
        coracle.command(&["run", "--name", "user", &used, "sh", "-c", watch]).spawn().unwrap();
    let end = AtomicBool::new(false);
    let removed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                for id in coracle.ok(&["images", "-q"]).lines() {
                    let ran = coracle.run(&["rmi", "-f", id]);
                    removed.fetch_add(usize::from(ran.code == 0), Ordering::Relaxed);
                    let is_refused = ran.err.contains("used by a container") || ran.err.contains("no image");
                    assert!(ran.code == 0 || is_refused, "{ran:?}");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let pulls: Vec<_> = (0..PULLS)
            .map(|number| {
                let (coracle, image) = (&coracle, shop.image(number));
                scope.spawn(move || {
                    for _ in 0..rounds {
                        coracle.ok(&["pull", "-q", &image]);
                        let ran = coracle.run(&["run", "--rm", "--pull", "never", &image, "cat", "/own"]);
                        let is_gone = ran.code == 125 && ran.err.contains("no image named");
                        assert!(is_gone || ran.out == number.to_string(), "{ran:?}");
                    }
                })
            })
            .collect();
        let all_well = pulls.into_iter().map(|pull| pull.join()).collect::<Vec<_>>();
        end.store(true, Ordering::Relaxed);
        assert!(all_well.into_iter().all(|result| result.is_ok()));
    });
    assert!(removed.into_inner() > 0, "nothing was removed");
    assert!(container.try_wait().unwrap().is_none(), "the container goes on");
    for number in 0..=PULLS {
        coracle.ok(&["pull", "-q", &shop.image(number)]);
        assert_eq!(coracle.ok(&["run", "--rm", &shop.image(number), "cat", "/own"]), number.to_string());
    }
    coracle.ok(&["rm", "-f", "user"]);
    container.wait().unwrap();
    for number in 0..=PULLS {
        coracle.ok(&["rmi", &shop.image(number)]);
    }
    assert_eq!(layers(&coracle), 0);
}

#[test]
fn a_removal_sees_the_container_that_is_being_made() {
    let coracle = Coracle::with_busybox();
    let run = coracle.command(&["run", "--name", "user", "busybox", "true"]);
    // Between the moment when it has found its image and that in which its record says so.
    let slow = "inject=symlink,symlinkat:delay_enter=1500000";
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", "trace=symlink,symlinkat", "-e", slow]);
    let mut run = strace.arg(run.get_program()).args(run.get_args()).spawn().unwrap();
    let containers = coracle.root().join("containers");
    let start = Instant::now();
    while std::fs::read_dir(&containers).into_iter().flatten().next().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "no container is made");
        std::thread::sleep(Duration::from_millis(5));
    }
    let removal = coracle.run(&["rmi", "busybox"]);
    assert!(removal.code == 1 && removal.err.contains("used by a container"), "{removal:?}");
    assert!(run.wait().unwrap().success());
    coracle.ok(&["rm", "user"]);
}
