//! `push`: against docker-registry, and against a registry that misbehaves in the middle of it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::coracle::{Coracle, Ran, fixture};
use crate::registry::{Answer, Asked, Door, Fake, PASSWORD, Registry, USER, layer, manifest};

/// coracle with the OCI busybox image, whose layer is compressed.
pub fn with_compressed() -> Coracle {
    let coracle = Coracle::new();
    coracle.ok(&["load", &format!("oci-archive:{}", fixture("busybox.oci.tar").display())]);
    coracle
}

/// Asserts three lines with these words.
#[track_caller]
pub fn refused(coracle: &Coracle, args: &[&str], words: &[&str]) {
    let ran = coracle.run(args);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{args:?}: {ran:?}");
    words.iter().for_each(|word| assert!(ran.err.contains(word), "{word:?} in: {}", ran.err));
    let said: Vec<&str> = ran.err.lines().skip_while(|line| !line.starts_with("error:")).collect();
    assert_eq!(said.len(), 3, "what failed, because of what, what to do: {}", ran.err);
}

/// Whether a program of another's is here; where it is not, that is said.
pub fn has(program: &str, test: &str) -> bool {
    let is_there = ["/usr/bin", "/usr/sbin"].iter().any(|place| Path::new(place).join(program).exists());
    if !is_there {
        println!("SKIP: {program}::{test}: {program} is not installed here");
    }
    is_there
}

/// What another program says; it succeeds.
#[track_caller]
pub fn peer(command: &mut Command) -> String {
    let ran: Ran = command.output().unwrap().into();
    assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
    ran.out
}

/// The manifest of an image as skopeo gets it.
#[track_caller]
pub fn raw(image: &str) -> String {
    peer(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", image]))
}

pub fn digest(text: &str) -> String {
    image::Digest::of(text.as_bytes()).to_string()
}

/// The digest that `push` says that it sent.
fn pushed_digest(ran: &Ran) -> String {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.split(' ').nth(2).unwrap_or_else(|| panic!("{ran:?}")).to_owned()
}

fn is_chunk(asked: &Asked) -> bool {
    asked.method == "PATCH"
}

#[test]
fn what_is_pushed_is_read_by_others_with_the_same_digests() {
    let coracle = with_compressed();
    let test = "what_is_pushed_is_read_by_others_with_the_same_digests";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Open) else { return };
    let image = format!("{}/anna/app:1", registry.host);
    let file = coracle.directory().join("digest").display().to_string();
    let first = coracle.run(&["push", "--digestfile", &file, "busybox", &image]);
    assert_eq!(
        first.out,
        format!("{image}: digest: {} size: {}\n", digest(&text(manifest())), manifest().len())
    );
    assert_eq!(first.err.lines().filter(|line| line.contains("B")).count(), 2, "{first:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), pushed_digest(&first));
    assert_eq!(raw(&format!("docker://{image}")), text(manifest()));
    let again = coracle.run(&["push", "busybox", &format!("docker://{image}")]);
    assert_eq!(again.err.lines().filter(|line| line.ends_with("already there")).count(), 2, "{again:?}");

    // A copy by name: the registry itself has the blobs, in another repository.
    let other = format!("{}/anna/other", registry.host);
    coracle.ok(&["tag", "busybox", &image]);
    coracle.ok(&["tag", "busybox", &other]);
    let mounted = coracle.run(&["push", &other]);
    assert_eq!(mounted.err.lines().filter(|line| line.contains("mounted from")).count(), 2, "{mounted:?}");
    assert_eq!(coracle.run(&["push", "-q", &other]).out, "");

    let id = coracle.ok(&["inspect", "-f", "{{.Id}}", "busybox"]);
    let back = Coracle::new();
    back.ok(&["pull", "-q", &other]);
    assert_eq!(back.ok(&["inspect", "-f", "{{.Id}}", &other]), id);
    assert_eq!(back.ok(&["run", "--rm", "--pull", "never", &other, "echo", "hello"]), "hello\n");
    if crate::coracle::is_root() && has("podman", test) {
        let podman = |args: &[&str]| {
            let mut podman = Command::new("podman");
            podman.arg("--root").arg(back.directory().join("podman"));
            podman.arg("--runroot").arg(back.directory().join("podman-run"));
            peer(podman.args(["--storage-driver", "vfs"]).args(args))
        };
        let pulled = podman(&["pull", "-q", "--tls-verify=false", &other]);
        assert_eq!(format!("sha256:{}", pulled.trim()), id.trim());
        podman(&["rmi", "-a", "-f"]);
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn plain_layers_are_compressed_the_same_each_time() {
    let coracle = Coracle::with_busybox();
    let test = "plain_layers_are_compressed_the_same_each_time";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Open) else { return };
    let names = ["a", "b"].map(|name| format!("{}/team/{name}", registry.host));
    let first = coracle.run(&["push", "busybox", &names[0]]);
    let again = coracle.run(&["push", "busybox", &names[0]]);
    assert_eq!(pushed_digest(&first), pushed_digest(&again));
    assert_eq!(again.err.lines().filter(|line| line.ends_with("already there")).count(), 2, "{again:?}");
    // Another machine, with another number of processors.
    let other = Coracle::with_busybox();
    let mut command = Command::new("taskset");
    let push = other.command(&["push", "busybox", &names[1]]);
    command.args(["-c", "0"]).arg(push.get_program()).args(push.get_args());
    let alone: Ran = command.output().unwrap().into();
    assert_eq!(pushed_digest(&alone), pushed_digest(&first), "{alone:?}");
    let read = raw(&format!("docker://{}", names[0]));
    assert!(read.contains("tar+gzip") && digest(&read) == pushed_digest(&first), "{read}");

    let id = coracle.ok(&["inspect", "-f", "{{.Id}}", "busybox"]);
    let plain = coracle.ok(&["inspect", "-f", "{{json .RootFS.Layers}}", "busybox"]);
    let plain = plain.trim().trim_matches(['[', ']', '"']).trim_start_matches("sha256:").to_owned();
    for (options, kind) in [
        (&["--compression-format", "zstd"][..], "tar+zstd"),
        (&["--compression-format", "zstd", "--compression-level", "19"], "tar+zstd"),
        (&["--force-compression", "--compression-level", "1"], "tar+gzip"),
    ] {
        let name = format!("{}/team/{}", registry.host, options.join("").replace('-', ""));
        let args = [&["push"], options, &["busybox", &name]].concat();
        assert_ne!(pushed_digest(&coracle.run(&args)), pushed_digest(&first));
        assert!(raw(&format!("docker://{name}")).contains(kind));
        // skopeo finds the plain bytes in it that the configuration names.
        let place = coracle.directory().join("read");
        let mut skopeo = Command::new("skopeo");
        skopeo.args([
            "copy",
            "-q",
            "--src-tls-verify=false",
            "--dest-decompress",
            &format!("docker://{name}"),
        ]);
        peer(skopeo.arg(format!("dir:{}", place.display())));
        assert!(place.join(&plain).exists(), "{plain}");
        std::fs::remove_dir_all(place).unwrap();
        let back = Coracle::new();
        back.ok(&["pull", "-q", &name]);
        assert_eq!(back.ok(&["inspect", "-f", "{{.Id}}", &name]), id);
    }
    refused(
        &coracle,
        &["push", "--compression-format", "lzma", "busybox", &names[0]],
        &["lzma", "gzip or zstd"],
    );
    refused(&coracle, &["push", "--compression-level", "10", "busybox", &names[0]], &["10", "from 1 to 9"]);
}

#[test]
fn a_locked_registry_wants_the_login_that_may_push() {
    let coracle = with_compressed();
    let test = "a_locked_registry_wants_the_login_that_may_push";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Locked) else { return };
    let image = format!("{}/anna/app", registry.host);
    let headline = format!("cannot push \"busybox\" to \"{image}\"");
    refused(&coracle, &["push", "--tls-verify", "busybox", &image], &[&headline, "cannot be trusted"]);
    refused(&coracle, &["push", "busybox", &image], &[&headline, "wants a login", "coracle login"]);
    let wrong = format!("{USER}:wrong");
    refused(&coracle, &["push", "--creds", &wrong, "busybox", &image], &["refuses the login"]);
    let certificates = coracle.directory().join("certificates");
    std::fs::create_dir(&certificates).unwrap();
    std::fs::copy(registry.certificate(), certificates.join("ca.crt")).unwrap();
    let (directory, creds) = (certificates.display().to_string(), format!("{USER}:{PASSWORD}"));
    coracle.ok(&["push", "--tls-verify", "--cert-dir", &directory, "--creds", &creds, "busybox", &image]);
    coracle.ok(&["rmi", "busybox"]);
    coracle.ok(&["pull", "-q", "--cert-dir", &directory, "--tls-verify", "--creds", &creds, &image]);
}

#[test]
fn a_token_allows_to_push_and_to_mount() {
    let coracle = with_compressed();
    let test = "a_token_allows_to_push_and_to_mount";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Tokens) else { return };
    let host = &registry.host;
    let creds = format!("{USER}:{PASSWORD}");
    let (image, other) = (format!("{host}/anna/app"), format!("{host}/anna/other"));
    refused(&coracle, &["push", "busybox", &image], &["wants a login"]);
    coracle.ok(&["push", "-q", "--creds", &creds, "busybox", &image]);
    coracle.ok(&["tag", "busybox", &image]);
    let mounted = coracle.run(&["push", "--creds", &creds, "busybox", &other]);
    assert_eq!(mounted.err.lines().filter(|line| line.contains("mounted from")).count(), 2, "{mounted:?}");
    let scopes = registry.tokens.as_ref().unwrap().scopes();
    assert_eq!(scopes.last().unwrap(), &["repository:anna/other:pull,push", "repository:anna/app:pull"]);
    coracle.ok(&["pull", "-q", "--creds", &creds, &other]);
}

/// A push to a registry that answers so; it goes well.
#[track_caller]
fn pushed(answer: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Fake {
    let registry = Fake::start(move |asked| answer(asked).unwrap_or(Answer::Honest));
    let coracle = with_compressed();
    let ran = coracle.run(&["push", "-q", "busybox", &registry.image()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}\n{:#?}", registry.asked(""));
    assert_eq!(registry.pushed("latest").unwrap(), manifest());
    assert_eq!(registry.pushed(&layer().0).unwrap().len(), layer().1);
    registry
}

fn chunks(registry: &Fake) -> Vec<Option<(u64, u64)>> {
    registry.asked("").iter().filter(|asked| is_chunk(asked)).map(|asked| asked.chunk).collect()
}

/// Section "Push" of the distribution specification 1.1, point by point.
#[test]
fn a_push_keeps_to_the_specification() {
    let registry = pushed(|_| None);
    let asked = registry.asked("");
    let of = |method: &str| asked.iter().filter(|one| one.method == method).cloned().collect::<Vec<_>>();
    // Blobs are asked for first, and an upload begins with nothing in it.
    assert_eq!(of("HEAD").len(), 2, "{asked:?}");
    assert!(
        of("POST").iter().all(|one| one.path == "/v2/app/blobs/uploads/" && one.length == 0),
        "{asked:?}"
    );
    // A chunk says what part of the blob it is, both ends included, and how long.
    let [chunk] = &of("PATCH")[..] else { panic!("{asked:?}") };
    assert_eq!((chunk.chunk, chunk.length), (Some((0, layer().1 as u64 - 1)), layer().1));
    assert_eq!(chunk.kind, "application/octet-stream");
    // What ends an upload names the digest; the small blob comes with it, of the other one nothing is left to send.
    let ends: Vec<Asked> = of("PUT").into_iter().filter(|one| one.path.contains("/uploads/")).collect();
    let mut lengths: Vec<usize> = ends.iter().map(|one| one.length).collect();
    lengths.sort();
    assert!(lengths[0] == 0 && lengths[1] < 1000 && lengths.len() == 2, "{ends:?}");
    assert!(
        ends.iter().all(|one| one.path.contains("?digest=sha256:") && one.kind == "application/octet-stream")
    );
    // The manifest is the last, is called by its tag, and says what it is.
    let last = asked.last().unwrap();
    assert_eq!((last.method.as_str(), last.path.as_str()), ("PUT", "/v2/app/manifests/latest"));
    assert_eq!(last.kind, "application/vnd.oci.image.manifest.v1+json");
    assert!(of("DELETE").is_empty() && of("GET").iter().all(|one| one.path == "/v2/"), "{asked:?}");

    // An address may be absolute, relative to the host or to what was asked, and have a query of its own.
    for (begin, end) in
        [("http://HOST/v2/app/blobs/uploads/", ""), ("/v2/app/blobs/uploads/", ""), ("", "?state=a%2Fb")]
    {
        let is_end = move |one: &Asked| one.method == "PUT" && one.path.contains("/uploads/x");
        let own = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let host = std::sync::Arc::clone(&own);
        let registry = Fake::start(move |one| match one.method.as_str() {
            "POST" => {
                let to = format!("{}x{end}", begin.replace("HOST", &host.lock().unwrap()));
                Answer::Other(202, vec![("Location", to)], Vec::new())
            }
            "PATCH" => Answer::Other(202, Vec::new(), Vec::new()),
            _ if is_end(one) => Answer::Other(201, Vec::new(), Vec::new()),
            _ => Answer::Honest,
        });
        own.lock().unwrap().clone_from(&registry.host);
        with_compressed().ok(&["push", "-q", "busybox", &registry.image()]);
        let ends: Vec<Asked> = registry.asked("").into_iter().filter(|one| is_end(one)).collect();
        let query = if end.is_empty() { "?" } else { "?state=a%2Fb&" };
        assert!(
            ends.len() == 2
                && ends
                    .iter()
                    .all(|one| one.path.starts_with(&format!("/v2/app/blobs/uploads/x{query}digest=")))
        );
    }

    // Mounting is one question; a registry that does not mount begins an upload in its answer, or knows nothing of it.
    for (status, posts) in [(201, 2), (202, 2), (405, 4)] {
        let registry = Fake::start(move |one| {
            let is_mount = one.path.contains("?mount=sha256:") && one.path.ends_with("&from=other%2Fapp");
            if is_mount && status != 202 {
                Answer::Other(status, Vec::new(), Vec::new())
            } else {
                Answer::Honest
            }
        });
        let coracle = with_compressed();
        coracle.ok(&["tag", "busybox", &format!("{}/other/app", registry.host)]);
        coracle.ok(&["push", "-q", "busybox", &registry.image()]);
        let asked = registry.asked("");
        assert_eq!(asked.iter().filter(|one| one.method == "POST").count(), posts, "{status}: {asked:?}");
        assert_eq!(registry.pushed(&layer().0).is_some(), status != 201, "{status}");
        assert_eq!(registry.pushed("latest").unwrap(), manifest());
    }
}

#[test]
fn a_cut_upload_goes_on_where_the_registry_stands() {
    let registry = pushed(|asked| match asked.before {
        0 if is_chunk(asked) => Some(Answer::Cut(300_000)),
        1 if is_chunk(asked) => Some(Answer::Cut(200_000)),
        _ => None,
    });
    let end = layer().1 as u64 - 1;
    assert_eq!(chunks(&registry), [Some((0, end)), Some((300_000, end)), Some((500_000, end))]);
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn an_upload_that_the_registry_has_lost_begins_anew() {
    let not_found = || Some(Answer::Other(404, Vec::new(), Vec::new()));
    let nth = |count: &AtomicUsize| count.fetch_add(1, Ordering::Relaxed);
    // It loses it while it comes, or when it is asked how far it is.
    let count = AtomicUsize::new(0);
    let registry = pushed(move |asked| if is_chunk(asked) && nth(&count) == 0 { not_found() } else { None });
    assert_eq!(chunks(&registry).len(), 2);
    let count = AtomicUsize::new(0);
    let registry = pushed(move |asked| match asked.method.as_str() {
        "PATCH" if nth(&count) == 0 => Some(Answer::Cut(1000)),
        "GET" if asked.path.contains("/uploads/") => not_found(),
        _ => None,
    });
    let end = layer().1 as u64 - 1;
    assert_eq!(chunks(&registry), [Some((0, end)), Some((0, end))]);
}

#[test]
fn a_busy_or_failing_registry_is_asked_again() {
    for (method, status) in [("POST", 429), ("PATCH", 429), ("PATCH", 500), ("PUT", 503), ("HEAD", 502)] {
        let (count, is_first) =
            (AtomicUsize::new(0), |count: &AtomicUsize| count.fetch_add(1, Ordering::Relaxed) == 0);
        let start = Instant::now();
        pushed(move |asked| {
            let seconds = vec![("Retry-After", "1".to_owned())];
            (asked.method == method && is_first(&count)).then_some(Answer::Other(status, seconds, Vec::new()))
        });
        assert!(
            start.elapsed() >= Duration::from_secs(1),
            "{method} {status}: the registry said how long to wait"
        );
    }
    let coracle = with_compressed();
    let refusals: [(&str, u16, &str); 6] = [
        ("PATCH", 500, "answers with status 500"),
        ("PUT", 400, "answers with status 400: it is wrong"),
        ("POST", 403, "does not allow it: it is wrong"),
        ("PATCH", 401, "wants a login"),
        ("HEAD", 429, "has too much to do"),
        ("PATCH", 404, "has no upload for app"),
    ];
    for (method, status, words) in refusals {
        let registry = Fake::start(move |asked| {
            let body = br#"{"errors":[{"code":"DENIED","message":"it is wrong"}]}"#.to_vec();
            if asked.method == method { Answer::Other(status, Vec::new(), body) } else { Answer::Honest }
        });
        let headline = format!("cannot push \"busybox\" to \"{}\"", registry.image());
        refused(&coracle, &["push", "busybox", &registry.image()], &[&headline, words]);
        assert_eq!(registry.pushed("latest"), None, "{method} {status}");
        // What the registry has lost nobody can give up.
        assert!(registry.open_uploads() == 0 || status == 404, "{method} {status}");
    }
}

#[test]
fn a_registry_that_keeps_something_else_is_said() {
    let coracle = with_compressed();
    for place in ["/manifests/", "/uploads/"] {
        let registry = Fake::start(move |asked| {
            let headers = vec![("Docker-Content-Digest", format!("sha256:{}", "a".repeat(64)))];
            let is_end = asked.method == "PUT" && asked.path.contains(place);
            if is_end { Answer::Other(201, headers, Vec::new()) } else { Answer::Honest }
        });
        refused(&coracle, &["push", "busybox", &registry.image()], &["says that it got sha256:aaaa"]);
    }
}

#[test]
fn a_registry_that_takes_no_chunks_or_only_short_ones_gets_them_so() {
    for status in [405, 501] {
        let registry =
            pushed(move |asked| is_chunk(asked).then(|| Answer::Other(status, Vec::new(), Vec::new())));
        let whole: Vec<usize> = registry
            .asked(&layer().0)
            .iter()
            .filter(|asked| asked.method == "PUT")
            .map(|asked| asked.length)
            .collect();
        assert_eq!(whole, [layer().1], "{status}");
    }
    // Something before the registry has a limit, here of a megabyte; the registry itself wants no shorter ones.
    let limit = 1 << 20;
    let registry = pushed(move |asked| match asked.method.as_str() {
        "PATCH" if asked.length > limit => Some(Answer::Other(413, Vec::new(), Vec::new())),
        _ => None,
    });
    let sent: Vec<_> =
        chunks(&registry).into_iter().flatten().filter(|(begin, end)| end - begin < limit as u64).collect();
    assert_eq!(sent, [(0, limit as u64 - 1), (limit as u64, layer().1 as u64 - 1)]);
    let least = Fake::start(move |asked| match asked.method.as_str() {
        "POST" => Answer::Other(
            202,
            vec![
                ("Location", "/v2/app/blobs/uploads/x".to_owned()),
                ("OCI-Chunk-Min-Length", (limit * 2).to_string()),
            ],
            Vec::new(),
        ),
        "PATCH" => Answer::Other(413, Vec::new(), Vec::new()),
        _ => Answer::Honest,
    });
    let coracle = with_compressed();
    refused(&coracle, &["push", "busybox", &least.image()], &["status 413"]);
    assert!(chunks(&least).into_iter().flatten().all(|(begin, end)| end - begin + 1 == layer().1 as u64));
}

#[test]
fn uploads_go_where_they_are_led_without_the_login() {
    let storage = std::sync::Arc::new(Fake::start(|asked| match asked.method.as_str() {
        "PATCH" => Answer::Other(202, vec![("Range", format!("0-{}", asked.length - 1))], Vec::new()),
        _ => Answer::Other(201, Vec::new(), Vec::new()),
    }));
    let other = storage.host.clone();
    let registry = Fake::start(move |asked| {
        let to = |path: &str| vec![("Location", format!("http://{other}{path}"))];
        match (&asked.authorization, asked.method.as_str()) {
            (None, _) if asked.path != "/v2/" => {
                Answer::Other(401, vec![("WWW-Authenticate", "Basic realm=\"test\"".to_owned())], Vec::new())
            }
            // By a redirect, or by the address of the upload itself.
            (_, "POST") if asked.before == 0 => Answer::Other(202, to("/upload?state=x"), Vec::new()),
            (_, "PATCH") | (_, "PUT") if asked.path.contains("/uploads/") => {
                Answer::Other(307, to("/put"), Vec::new())
            }
            _ => Answer::Honest,
        }
    });
    let coracle = with_compressed();
    let creds = format!("{USER}:{PASSWORD}");
    coracle.ok(&["push", "-q", "--creds", &creds, "busybox", &registry.image()]);
    let led = storage.asked("");
    assert!(
        led.iter().any(|asked| asked.path == "/put")
            && led.iter().any(|asked| asked.path.starts_with("/upload?state=x")),
        "{led:?}"
    );
    assert!(led.iter().all(|asked| asked.authorization.is_none()), "{led:?}");
    assert!(led.iter().any(|asked| asked.path.starts_with("/upload?state=x&digest=sha256:")), "{led:?}");
    assert_eq!(registry.pushed("latest").unwrap(), manifest());
}

#[test]
fn what_is_damaged_here_is_not_sent() {
    let coracle = with_compressed();
    let blob = coracle.root().join("image/blobs/sha256").join(layer().0.trim_start_matches("sha256:"));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let registry = Fake::start(|_| Answer::Honest);
    refused(&coracle, &["push", "busybox", &registry.image()], &["has digest", &layer().0]);
    assert_eq!(registry.pushed("latest"), None);
    assert_eq!(registry.open_uploads(), 0);
    std::fs::write(&blob, &bytes[..600_000]).unwrap();
    refused(&coracle, &["push", "busybox", &registry.image()], &["600000 bytes, not"]);
}

#[test]
fn what_is_here_only_unpacked_is_fetched_from_where_it_came() {
    let registry = Fake::start(|_| Answer::Honest);
    let coracle = Coracle::new();
    coracle.ok(&["pull", "-q", &registry.image()]);
    coracle.ok(&["image", "prune", "--blobs", "-f"]);
    let before = registry.asked(&layer().0).len();
    let target = Fake::start(|_| Answer::Honest);
    coracle.ok(&["push", "-q", &registry.image(), &target.image()]);
    assert_eq!(target.pushed("latest").unwrap(), manifest());
    assert_eq!(target.pushed(&layer().0).unwrap().len(), layer().1);
    assert_eq!(registry.asked(&layer().0).len(), before + 1, "it was fetched for that");
    // Under another name it has come from there all the same.
    coracle.ok(&["tag", &registry.image(), "mine:1"]);
    let another = Fake::start(|_| Answer::Honest);
    coracle.ok(&["push", "-q", "mine:1", &another.image()]);
    assert_eq!(another.pushed("latest").unwrap(), manifest());
}

#[test]
fn an_image_can_be_removed_while_it_is_sent() {
    let registry = Fake::start(|asked| {
        if is_chunk(asked) {
            std::thread::sleep(Duration::from_secs(3));
        }
        Answer::Honest
    });
    let coracle = with_compressed();
    let mut push = coracle.command(&["push", "-q", "busybox", &registry.image()]).spawn().unwrap();
    let start = Instant::now();
    while !registry.asked("").iter().any(is_chunk) {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing is sent");
        std::thread::sleep(Duration::from_millis(10));
    }
    coracle.ok(&["rmi", "busybox"]);
    assert!(push.try_wait().unwrap().is_none(), "nobody waits for a push to remove an image");
    assert!(push.wait().unwrap().success());
    assert_eq!(registry.pushed("latest").unwrap(), manifest());
}

#[test]
fn a_push_that_cannot_be_is_said() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let coracle = with_compressed();
    let image = format!("{nobody}/app");
    refused(
        &coracle,
        &["push", "busybox", &image],
        &["cannot push \"busybox\" to", &image, "cannot be reached"],
    );
    refused(&coracle, &["push", "nosuch", &image], &["no image named \"nosuch\""]);
    refused(&coracle, &["push", "host", &image], &["image host is built in"]);
    refused(&coracle, &["push", "busybox", "UPPER"], &["is not a name"]);
    refused(
        &coracle,
        &["push", "--platform", "linux/s390x", "busybox", &image],
        &["not here for linux/s390x"],
    );
    let staging = coracle.root().join("image/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
}
