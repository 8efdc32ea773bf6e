//! `pull`, `login`, `logout`, and `run` with an image that is not here: against docker-registry, and against a registry that misbehaves.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::coracle::{Coracle, Ran};
use crate::registry::{Answer, Asked, Door, Fake, PASSWORD, Registry, USER, layer, manifest};

/// Asserts three lines with these words, and that the store is as empty as before.
#[track_caller]
fn refused(coracle: &Coracle, args: &[&str], words: &[&str]) {
    let ran = coracle.run(args);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{args:?}: {ran:?}");
    words.iter().for_each(|word| assert!(ran.err.contains(word), "{word:?} in: {}", ran.err));
    assert_eq!(ran.err.lines().count(), 3, "what failed, because of what, what to do: {}", ran.err);
    assert_eq!(coracle.ok(&["images", "-q"]), "");
    for directory in ["staging", "layers", "blobs/sha256"] {
        let left: Vec<_> = std::fs::read_dir(coracle.root().join("image").join(directory)).unwrap().collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

fn partial_bytes(coracle: &Coracle) -> u64 {
    let partial = coracle.root().join("image/partial");
    std::fs::read_dir(partial)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

fn is_layer(asked: &Asked) -> bool {
    asked.path.ends_with(&layer().0)
}

#[test]
fn an_image_comes_from_a_real_registry_when_it_is_run() {
    let coracle = Coracle::new();
    let test = "an_image_comes_from_a_real_registry_when_it_is_run";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Open) else { return };
    let image = format!("{}/team/busybox", registry.host);
    let run = |policy: &str| coracle.run(&["run", "--rm", "--pull", policy, &image, "echo", "hello"]);
    let never = run("never");
    assert_eq!(never.code, 125, "{never:?}");
    assert!(never.err.contains("no image named"), "{never:?}");
    let missing = run("missing");
    assert_eq!((missing.code, missing.out.as_str()), (0, "hello\n"), "{missing:?}");
    assert!(missing.err.contains("Asking the registry"), "{missing:?}");
    let again = run("missing");
    assert_eq!((again.code, again.err.as_str()), (0, ""), "{again:?}");
    let always = run("always");
    assert!(always.code == 0 && always.err.contains("already here"), "{always:?}");
    let pulled = coracle.run(&["pull", "-q", &image]);
    assert_eq!((pulled.out, pulled.err), (format!("{image}:latest\n"), String::new()));
    let digests = coracle.ok(&["inspect", "-f", "{{json .RepoDigests}}", &image]);
    let by_digest = digests.split('"').find(|text| text.contains('@')).unwrap().to_owned();
    assert_eq!(coracle.ok(&["pull", "-q", &by_digest]), format!("{by_digest}\n"));
    let unknown = run_unknown(&coracle, &format!("{}/team/nosuch", registry.host));
    assert!(unknown.err.contains("has no image team/nosuch:latest"), "{unknown:?}");
}

fn run_unknown(coracle: &Coracle, image: &str) -> Ran {
    let ran = coracle.run(&["run", "--rm", image, "true"]);
    assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{ran:?}");
    ran
}

#[test]
fn a_registry_behind_tls_and_a_login() {
    let coracle = Coracle::new();
    let test = "a_registry_behind_tls_and_a_login";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Locked) else { return };
    let host = registry.host.as_str();
    let image = format!("{host}/team/busybox");
    let verify = "--tls-verify";
    refused(&coracle, &["pull", verify, &image], &["cannot be trusted", "certs.d", "--tls-verify=false"]);
    let trusted = coracle.directory().join("certificates").display().to_string();
    std::fs::create_dir(&trusted).unwrap();
    std::fs::copy(registry.certificate(), format!("{trusted}/ca.crt")).unwrap();
    let trust = ["--cert-dir", &trusted];
    refused(
        &coracle,
        &["pull", verify, trust[0], trust[1], &image],
        &["wants a login", &format!("coracle login {host}")],
    );

    let login = |password: &str| -> Output {
        use std::io::Write as _;
        let mut command =
            coracle.command(&["login", verify, trust[0], trust[1], "-u", USER, "--password-stdin", host]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        child.wait_with_output().unwrap()
    };
    let wrong: Ran = login("wrong").into();
    assert!(wrong.code == 1 && wrong.err.contains("refuses the login"), "{wrong:?}");
    let right: Ran = login(PASSWORD).into();
    assert_eq!((right.code, right.out.as_str()), (0, "Login Succeeded\n"), "{right:?}");
    let file = coracle.directory().join("auth.json");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(coracle.ok(&["pull", "-q", verify, trust[0], trust[1], &image]), format!("{image}:latest\n"));
    // What we wrote is podman's form of it.
    let skopeo = Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--authfile"])
        .arg(&file)
        .arg(format!("docker://{image}"))
        .output()
        .unwrap();
    assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));

    assert!(coracle.ok(&["logout", host]).contains("auth.json"));
    coracle.ok(&["rmi", &image]);
    refused(&coracle, &["pull", "--tls-verify=false", &image], &["wants a login"]);
    let creds = format!("{USER}:{PASSWORD}");
    coracle.ok(&["pull", "-q", "--tls-verify=false", "--creds", &creds, &image]);
    assert_eq!(coracle.run(&["logout", host]).code, 1);
}

#[test]
fn a_token_is_got_and_told_to_nobody_else() {
    let elsewhere = std::sync::Arc::new(Fake::start(|_| Answer::Honest));
    let other = elsewhere.host.clone();
    let (sender, own) = std::sync::mpsc::channel::<String>();
    let own = std::sync::Mutex::new((own, String::new()));
    let registry = Fake::start(move |asked| {
        let mut own = own.lock().unwrap();
        if own.1.is_empty() {
            own.1 = own.0.recv().unwrap();
        }
        let host = own.1.clone();
        if asked.path.starts_with("/token") {
            let body = format!("{{\"token\":\"t{}\"}}", asked.before);
            return Answer::Other(200, Vec::new(), body.into_bytes());
        }
        if asked.authorization.as_deref() != Some("Bearer t0") && asked.path != "/v2/" {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"test\"");
            return Answer::Other(401, vec![("WWW-Authenticate", challenge)], Vec::new());
        }
        if is_layer(asked) {
            return Answer::Other(
                307,
                vec![("Location", format!("http://{other}{}", asked.path))],
                Vec::new(),
            );
        }
        Answer::Honest
    });
    sender.send(registry.host.clone()).unwrap();
    let coracle = Coracle::new();
    coracle.ok(&["pull", "-q", "--creds", &format!("{USER}:{PASSWORD}"), &registry.image()]);
    let tokens: Vec<Asked> =
        registry.asked("").into_iter().filter(|asked| asked.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1, "one token is enough: {tokens:?}");
    assert!(
        tokens[0].path.contains("scope=repository%3Aapp%3Apull")
            || tokens[0].path.contains("scope=repository:app:pull"),
        "{tokens:?}"
    );
    assert!(tokens[0].authorization.as_deref().is_some_and(|value| value.starts_with("Basic ")));
    let redirected = elsewhere.asked(&layer().0);
    assert!(
        !redirected.is_empty() && redirected.iter().all(|asked| asked.authorization.is_none()),
        "{redirected:?}"
    );
}

#[test]
fn a_cut_connection_is_taken_up_where_it_was_cut() {
    let registry = Fake::start(|asked| match (is_layer(asked), asked.before) {
        (true, 0) => Answer::Cut(300_000),
        (true, 1) => Answer::Cut(200_000),
        _ => Answer::Honest,
    });
    let coracle = Coracle::new();
    coracle.ok(&["pull", "-q", &registry.image()]);
    let begins: Vec<Option<u64>> = registry.asked(&layer().0).iter().map(|asked| asked.range).collect();
    assert_eq!(begins, [None, Some(300_000), Some(500_000)]);
    assert_eq!(partial_bytes(&coracle), 0);
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let registry = Fake::start(|asked| match (is_layer(asked), asked.before) {
        (true, 0) => Answer::Stall(600_000),
        _ => Answer::Honest,
    });
    let coracle = Coracle::new();
    let mut child = coracle.command(&["pull", "-q", &registry.image()]).spawn().unwrap();
    let start = Instant::now();
    while partial_bytes(&coracle) < 600_000 {
        assert!(start.elapsed() < Duration::from_secs(20), "{} bytes", partial_bytes(&coracle));
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    coracle.ok(&["pull", "-q", &registry.image()]);
    let begins: Vec<Option<u64>> = registry.asked(&layer().0).iter().map(|asked| asked.range).collect();
    assert_eq!(begins, [None, Some(600_000)]);
    assert_eq!(
        coracle.ok(&["run", "--rm", "--pull", "never", &registry.image(), "echo", "whole"]),
        "whole\n"
    );
}

#[test]
fn what_nobody_came_back_for_goes_after_a_week() {
    let registry = Fake::start(|_| Answer::Honest);
    let coracle = Coracle::new();
    coracle.ok(&["images"]);
    let partial = coracle.root().join("image/partial");
    std::fs::create_dir_all(&partial).unwrap();
    let [old, new, held] = ["a", "b", "c"].map(|digit| partial.join(digit.repeat(64)));
    let week = Duration::from_secs(7 * 24 * 60 * 60 + 60);
    let held_file = std::fs::File::create(&held).unwrap();
    std::fs::write(&new, [0; 10]).unwrap();
    for file in [&std::fs::File::create(&old).unwrap(), &held_file] {
        file.set_modified(std::time::SystemTime::now() - week).unwrap();
    }
    rustix::fs::flock(&held_file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    coracle.ok(&["pull", "-q", &registry.image()]);
    assert_eq!([old.exists(), new.exists(), held.exists()], [false, true, true]);
}

/// A program that keeps logins, as docker's protocol for them has it.
#[test]
fn a_credential_helper_is_asked() {
    use std::os::unix::fs::PermissionsExt;
    let registry = Fake::start(|asked| match &asked.authorization {
        None if asked.path != "/v2/" => {
            Answer::Other(401, vec![("WWW-Authenticate", "Basic realm=\"test\"".to_owned())], Vec::new())
        }
        _ => Answer::Honest,
    });
    let coracle = Coracle::new();
    let programs = coracle.directory().join("bin");
    std::fs::create_dir(&programs).unwrap();
    let helper = programs.join("docker-credential-test");
    let login = format!("{{\"ServerURL\":\"x\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}");
    std::fs::write(
        &helper,
        format!("#!/bin/sh\ncat > {}/$1\necho '{login}'\n", coracle.directory().display()),
    )
    .unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let write = |name: &str| {
        let text = format!("{{\"credHelpers\":{{\"{}\":\"{name}\"}}}}", registry.host);
        std::fs::write(coracle.directory().join("auth.json"), text).unwrap();
    };
    let pull = || -> Ran {
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        coracle.command(&["pull", "-q", &registry.image()]).env("PATH", path).output().unwrap().into()
    };
    write("test");
    let pulled = pull();
    assert_eq!(pulled.code, 0, "{pulled:?}");
    assert_eq!(std::fs::read_to_string(coracle.directory().join("get")).unwrap(), registry.host);
    let sent = registry.asked(&layer().0)[0].authorization.clone();
    // anna:se:cret
    assert_eq!(sent.as_deref(), Some("Basic YW5uYTpzZTpjcmV0"));
    write("missing");
    let failed = pull();
    assert!(failed.code == 1 && failed.err.contains("docker-credential-missing failed"), "{failed:?}");
    write("../test");
    assert!(pull().err.contains("no slash"));
}

#[test]
fn what_was_damaged_on_the_disk_is_fetched_anew() {
    let registry = Fake::start(|_| Answer::Honest);
    let coracle = Coracle::new();
    coracle.ok(&["images"]);
    let partial = coracle.root().join("image/partial");
    std::fs::create_dir_all(&partial).unwrap();
    std::fs::write(
        partial.join(format!("{}-{}", layer().0.trim_start_matches("sha256:"), layer().1)),
        [0; 100_000],
    )
    .unwrap();
    coracle.ok(&["pull", "-q", &registry.image()]);
    let begins: Vec<Option<u64>> = registry.asked(&layer().0).iter().map(|asked| asked.range).collect();
    assert_eq!(begins.last(), Some(&None), "{begins:?}");
}

#[test]
fn one_layer_for_two_pulls_is_fetched_once() {
    let registry = Fake::start(|asked| {
        if is_layer(asked) {
            std::thread::sleep(Duration::from_millis(500));
        }
        Answer::Honest
    });
    let coracle = Coracle::new();
    coracle.ok(&["images"]);
    let names = ["a", "b", "c"].map(|tag| format!("{}/{tag}", registry.host));
    let children: Vec<_> =
        names.iter().map(|name| coracle.command(&["pull", "-q", name]).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(registry.asked(&layer().0).len(), 1);
    assert_eq!(coracle.ok(&["images", "--format", "{{.Repository}}"]).lines().count(), 3);
    assert_eq!(partial_bytes(&coracle), 0);
}

#[test]
fn a_busy_registry_is_asked_again_and_then_left_alone() {
    let busy = |seconds: &str| Answer::Other(429, vec![("Retry-After", seconds.to_owned())], Vec::new());
    let registry = Fake::start(move |asked| match asked.before {
        0 if asked.path != "/v2/" => busy("1"),
        _ => Answer::Honest,
    });
    let coracle = Coracle::new();
    let start = Instant::now();
    coracle.ok(&["pull", "-q", &registry.image()]);
    assert!(start.elapsed() >= Duration::from_secs(1), "the registry said how long to wait");
    let always = Fake::start(move |asked| if asked.path == "/v2/" { Answer::Honest } else { busy("3600") });
    refused(&Coracle::new(), &["pull", &always.image()], &["has too much to do", "3600 s"]);
    let broken = Fake::start(|asked| match asked.path.as_str() {
        "/v2/" => Answer::Honest,
        _ => Answer::Other(
            500,
            Vec::new(),
            br#"{"errors":[{"code":"UNKNOWN","message":"out of \u001b[31mdisk"}]}"#.to_vec(),
        ),
    });
    refused(&Coracle::new(), &["pull", &broken.image()], &["status 500: out of [31mdisk"]);
    assert_eq!(broken.asked("latest").len(), 5);
}

#[test]
fn a_hostile_registry_leaves_nothing() {
    let coracle = Coracle::new();
    let attack = |answer: fn(&Asked) -> Option<Answer>, words: &[&str]| {
        let registry = Fake::start(move |asked| answer(asked).unwrap_or(Answer::Honest));
        refused(&coracle, &["pull", &registry.image()], words);
        assert_eq!(partial_bytes(&coracle), 0, "{words:?}");
    };
    let wrong_layer =
        |asked: &Asked| is_layer(asked).then(|| Answer::Other(200, Vec::new(), vec![7; layer().1]));
    attack(wrong_layer, &["layer sha256:", "not a tar archive"]);
    let endless = |asked: &Asked| {
        asked.path.ends_with("latest").then(|| Answer::Other(200, Vec::new(), vec![b' '; 5 << 20]))
    };
    attack(endless, &["longer than 4194304 bytes"]);
    let wrong_configuration = |asked: &Asked| {
        let is_configuration = asked.path.contains("/blobs/") && !is_layer(asked);
        is_configuration.then(|| Answer::Other(200, Vec::new(), b"{}".to_vec()))
    };
    attack(wrong_configuration, &["bytes, not"]);
    // An index that names itself cannot be made, but a long chain can.
    let chain = |asked: &Asked| {
        let depth = asked.path.rsplit('/').next()?.len();
        asked.path.contains("/manifests/").then(|| {
            let padding = " ".repeat(if depth > 10 { asked.before } else { 0 });
            let digest = "a".repeat(64);
            let body = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:{digest}","size":9}}]}}{padding}"#
            );
            Answer::Other(200, vec![("Content-Type", "application/vnd.oci.image.index.v1+json".to_owned())], body.into_bytes())
        })
    };
    attack(chain, &["sha256:aaaa"]);
    let no_manifest = |asked: &Asked| {
        asked
            .path
            .ends_with("latest")
            .then(|| Answer::Other(200, Vec::new(), b"<html>log in to the network</html>".to_vec()))
    };
    attack(no_manifest, &["is malformed"]);
    let first_form = |asked: &Asked| {
        let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws".to_owned();
        asked.path.ends_with("latest").then(|| Answer::Other(200, vec![("Content-Type", kind)], manifest()))
    };
    attack(first_form, &["docker's first form"]);
}

#[test]
fn a_registry_that_is_not_there_is_said() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let coracle = Coracle::new();
    refused(&coracle, &["pull", &format!("{nobody}/app")], &["cannot be reached", "refused"]);
    refused(&coracle, &["pull", "docker://UPPER"], &["is not a name"]);
    refused(&coracle, &["pull", "--creds", "nocolon", "app"], &["--creds", "NAME:PASSWORD"]);
}

#[test]
fn docker_io_has_several_names() {
    let coracle = Coracle::new();
    for name in ["index.docker.io", "https://index.docker.io/v1/"] {
        let mut command = coracle.command(&["login", "-u", "anna", "-p", "x", name]);
        let ran: Ran = command.env("NO_PROXY", "").output().unwrap().into();
        assert!(ran.code == 1 && ran.err.contains("docker.io cannot be reached"), "{name}: {ran:?}");
    }
    let auth = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"}}}"#;
    std::fs::write(coracle.directory().join("auth.json"), auth).unwrap();
    coracle.ok(&["logout", "https://index.docker.io/v1/"]);
    let ran = coracle.run(&["pull", "host.test:65536/app"]);
    assert!(ran.code == 1 && ran.err.contains("no host name"), "{ran:?}");
}
