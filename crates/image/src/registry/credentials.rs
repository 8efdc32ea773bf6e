//! Names and passwords for registries, where podman and docker keep them: `auth.json`, `config.json`, credential helpers.
//!
//! containers-auth.json(5), and docker's `config.json` with its credential helpers' protocol.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result, system};

/// What a registry takes for a login.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that the token server exchanges for others.
    IdentityToken(String),
}

// Neither belongs into a log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// The file with the credentials, with everything in it that is not read here.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    auths: BTreeMap<String, Entry>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    creds_store: String,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    #[serde(skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Where credentials are looked for, the first file first.
#[derive(Debug, Clone)]
pub struct AuthFiles {
    files: Vec<PathBuf>,
    /// Where new ones are kept.
    own: Option<PathBuf>,
}

impl AuthFiles {
    /// Only this file: `--authfile`.
    pub fn only(path: PathBuf) -> Self {
        Self { own: Some(path.clone()), files: vec![path] }
    }

    /// The files that podman and docker use too: `$REGISTRY_AUTH_FILE` alone where it is set, else
    /// `$XDG_RUNTIME_DIR/containers/auth.json` (or `/run/containers/UID/auth.json`), `$XDG_CONFIG_HOME/containers/auth.json`, and
    /// `config.json` in `$DOCKER_CONFIG` or `~/.docker`. New logins go into the second, which outlives the boot.
    pub fn of_this_user() -> Self {
        let directory =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = directory("REGISTRY_AUTH_FILE") {
            return Self::only(path);
        }
        let home = directory("HOME");
        let configuration = directory("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let uid = rustix::process::geteuid().as_raw();
        let runtime = directory("XDG_RUNTIME_DIR").map(|path| path.join("containers/auth.json"));
        let docker = directory("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        let files = [
            Some(runtime.unwrap_or_else(|| format!("/run/containers/{uid}/auth.json").into())),
            configuration.map(|path| path.join("containers/auth.json")),
            docker.map(|path| path.join("config.json")),
        ];
        let own = files[1].clone();
        Self { files: files.into_iter().flatten().collect(), own }
    }

    /// The credentials for a repository (`host/path`); those of the longest prefix that there are some for.
    pub fn find(&self, repository: &str) -> Result<Option<Credentials>> {
        for path in &self.files {
            if let Some(found) = read(path)?.find(repository, path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps credentials for a registry, readable by this user only, and says where. Those that other files have for it
    /// go: they might be found first.
    pub fn store(&self, registry: &str, credentials: &Credentials) -> Result<String> {
        let path = self.own.as_ref().ok_or(Error::NoHome)?;
        for other in self.files.iter().filter(|other| *other != path && other.exists()) {
            Self::only(other.clone()).forget(Some(registry))?;
        }
        let mut file = read(path)?;
        if let Some(helper) = file.helper(registry) {
            let (user, secret) = match credentials {
                Credentials::Password { user, password } => (user.as_str(), password),
                Credentials::IdentityToken(token) => (TOKEN_USER, token),
            };
            let login = Login { server: server_key(registry), user: user.to_owned(), secret: secret.clone() };
            ask_helper(&helper, "store", &crate::store::to_json(&login))?;
            file.auths.insert(server_key(registry), Entry::default());
            write(path, &file)?;
            return Ok(format!("docker-credential-{helper}"));
        }
        let entry = match credentials {
            Credentials::Password { user, password } => {
                Entry { auth: STANDARD.encode(format!("{user}:{password}")), ..Entry::default() }
            }
            Credentials::IdentityToken(token) => Entry { identitytoken: token.clone(), ..Entry::default() },
        };
        file.auths.retain(|key, _| host_of_key(key) != registry || key.contains('/') && !key.contains("://"));
        file.auths.insert(registry.to_owned(), entry);
        write(path, &file)?;
        Ok(path.display().to_string())
    }

    /// Forgets the credentials for a registry, in every file that has some, or for all. Gives the files that had.
    pub fn forget(&self, registry: Option<&str>) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for path in &self.files {
            let mut file = read(path)?;
            let is_meant = |key: &String| registry.is_none_or(|registry| host_of_key(key) == registry);
            let keys: Vec<String> = file.auths.keys().filter(|key| is_meant(key)).cloned().collect();
            for key in &keys {
                if let Some(helper) = file.helper(&host_of_key(key)) {
                    ask_helper(&helper, "erase", key.as_bytes())?;
                }
                file.auths.remove(key);
            }
            if !keys.is_empty() {
                write(path, &file)?;
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }
}

/// The name that means a token, in the helpers' protocol.
const TOKEN_USER: &str = "<token>";

/// What a helper reads and writes.
#[derive(Serialize, Deserialize)]
struct Login {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl AuthFile {
    fn find(&self, repository: &str, path: &Path) -> Result<Option<Credentials>> {
        let host = repository.split('/').next().unwrap_or_default();
        if let Some(helper) = self.helper(host)
            && let Some(found) = self.of_helper(&helper, host)?
        {
            return Ok(Some(found));
        }
        // host/a/b, host/a, host
        let mut prefix = repository;
        loop {
            let entry = self.auths.iter().find(|(key, _)| plain_key(key) == prefix).map(|(_, entry)| entry);
            if let Some(found) = entry.map(|entry| entry.credentials(path, prefix)).transpose()?.flatten() {
                return Ok(Some(found));
            }
            match prefix.rsplit_once('/') {
                Some((shorter, _)) => prefix = shorter,
                None => return Ok(None),
            }
        }
    }

    /// What a helper knows. The one for all registries may be a program of another machine's desktop: where it is not, there are no logins
    /// in it.
    fn of_helper(&self, helper: &str, host: &str) -> Result<Option<Credentials>> {
        match ask_for_login(helper, &server_key(host)) {
            Err(Error::CredentialHelper { .. }) if helper == self.creds_store && !is_installed(helper) => {
                Ok(None)
            }
            other => other,
        }
    }

    fn helper(&self, host: &str) -> Option<String> {
        let own =
            self.cred_helpers.iter().find(|(key, _)| host_of_key(key) == host).map(|(_, name)| name.clone());
        own.or_else(|| (!self.creds_store.is_empty()).then(|| self.creds_store.clone()))
    }
}

impl Entry {
    fn credentials(&self, path: &Path, key: &str) -> Result<Option<Credentials>> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':')) {
            Some((user, password)) => {
                Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
            }
            None => Err(Error::BadAuthFile {
                path: path.to_owned(),
                reason: format!("the entry for {key} is not base64 of NAME:PASSWORD"),
            }),
        }
    }
}

/// A key of the file as `host[/path]`: docker writes `https://index.docker.io/v1/` for its own registry.
fn plain_key(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key.split_once('/') {
        Some((host, path)) => format!("{}/{path}", usual_host(host)),
        None => usual_host(key).to_owned(),
    }
}

/// The registry that a user's words mean, whatever else an address has: `https://index.docker.io/v1/` is `docker.io`.
pub fn registry_of(text: &str) -> String {
    plain_key(text)
}

fn host_of_key(key: &str) -> String {
    plain_key(key).split('/').next().unwrap_or_default().to_owned()
}

fn usual_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

/// What helpers know a registry by.
fn server_key(registry: &str) -> String {
    match registry {
        "docker.io" => "https://index.docker.io/v1/".to_owned(),
        other => other.to_owned(),
    }
}

fn ask_for_login(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let Some(bytes) = ask_helper(helper, "get", server.as_bytes())? else { return Ok(None) };
    let login: Login = serde_json::from_slice(&bytes).map_err(|_| Error::CredentialHelper {
        program: program(helper),
        reason: "its answer is not what the protocol says".to_owned(),
    })?;
    Ok(Some(match login.user.as_str() {
        TOKEN_USER => Credentials::IdentityToken(login.secret),
        _ => Credentials::Password { user: login.user, password: login.secret },
    }))
}

fn is_installed(helper: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program(helper)).exists())
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

/// Runs a helper with `input`; None where it knows nothing of that server.
fn ask_helper(helper: &str, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
    let bad = |reason: String| Error::CredentialHelper { program: program(helper), reason };
    // What was written into the file shall not choose a program anywhere.
    if helper.contains('/') {
        return Err(bad("a helper's name has no slash".to_owned()));
    }
    let spawned = Command::new(program(helper))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| bad(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why itself.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|error| bad(error.to_string()))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    if text.contains("credentials not found") {
        return Ok(None);
    }
    Err(bad(if text.is_empty() { output.status.to_string() } else { text }))
}

fn read(path: &Path) -> Result<AuthFile> {
    let bytes = match fs_err::read(path) {
        Ok(bytes) if bytes.is_empty() => return Ok(AuthFile::default()),
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(AuthFile::default()),
        Err(error) => return Err(Error::File(error)),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::BadAuthFile { path: path.to_owned(), reason: error.to_string() })
}

/// Writes under another name and renames, so that no reader sees half of it. Mode 0600.
fn write(path: &Path, file: &AuthFile) -> Result<()> {
    // What a link leads to is meant, not the link.
    let path = &fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        fs_err::create_dir_all(parent)?;
        fs_err::set_permissions(parent, PermissionsExt::from_mode(0o700))?;
    }
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(system("getrandom", path))?;
    let temporary = path.with_extension(format!("{:x}.new", u64::from_ne_bytes(random)));
    let mut text = serde_json::to_vec_pretty(file).unwrap_or_default();
    text.push(b'\n');
    let mut options = fs_err::OpenOptions::new();
    fs_err::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let mut target = options.open(&temporary)?;
    target.write_all(&text)?;
    target.sync_all()?;
    Ok(fs_err::rename(&temporary, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        serde_json::from_str(text).unwrap()
    }

    fn user(found: Option<Credentials>) -> Option<String> {
        found.map(|found| match found {
            Credentials::Password { user, .. } => user,
            Credentials::IdentityToken(token) => token,
        })
    }

    #[test]
    fn the_longest_prefix_counts_however_it_was_written() {
        let entry = |name: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{name}:x:y")));
        let file = file(&format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{},"a.test:5000":{},"a.test:5000/team":{},"https://b.test/v2/":{},
                "c.test":{{"identitytoken":"token"}},"d.test":{{}}}},"experimental":"on"}}"#,
            entry("hub"),
            entry("host"),
            entry("team"),
            entry("b"),
        ));
        let find = |name: &str| user(file.find(name, Path::new("x")).unwrap());
        assert_eq!(find("docker.io/library/debian").as_deref(), Some("hub"));
        assert_eq!(find("a.test:5000/app").as_deref(), Some("host"));
        assert_eq!(find("a.test:5000/team/app").as_deref(), Some("team"));
        assert_eq!(find("a.test:5000/teams").as_deref(), Some("host"));
        assert_eq!(find("b.test/x").as_deref(), Some("b"));
        assert_eq!(find("c.test/x").as_deref(), Some("token"));
        assert_eq!(find("d.test/x"), None);
        assert_eq!(find("a.test/x"), None);
        let found = file.find("a.test:5000", Path::new("x")).unwrap();
        assert_eq!(found, Some(Credentials::Password { user: "host".into(), password: "x:y".into() }));
        assert!(serde_json::to_string(&file).unwrap().contains("experimental"));
    }

    #[test]
    fn a_damaged_entry_is_said_without_its_content() {
        let file = file(r#"{"auths":{"a.test":{"auth":"c2VjcmV0"}}}"#);
        let error = file.find("a.test/x", Path::new("/x/auth.json")).unwrap_err().to_string();
        assert!(
            error.contains("/x/auth.json") && error.contains("a.test") && !error.contains("secret"),
            "{error}"
        );
    }
}
