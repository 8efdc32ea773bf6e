//! Registries: where images are fetched from by name (OCI distribution specification 1.1, and docker's older form of it).

mod authorization;
mod credentials;
mod download;
mod http;
mod names;
mod trust;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;

use ureq::http::{Method, StatusCode, header};
use ureq::{Body, http::Response};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, media};
use crate::reference::Reference;
use authorization::Authorizer;
pub use credentials::{AuthFiles, Credentials, registry_of};
pub(crate) use download::{Download, Partial, Stream};
use http::{Call, Server};
pub(crate) use upload::Sent;

/// The host that answers for `docker.io`.
const DOCKER_IO: &str = "registry-1.docker.io";

/// How registries are talked to.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where logins are.
    pub logins: AuthFiles,
    /// A login that goes before those: `--creds`.
    pub credentials: Option<Credentials>,
    /// The directory with the certificates for it: `--cert-dir`. None: `certs.d`.
    pub certificates: Option<PathBuf>,
    /// Whether a registry has to prove who it is by TLS. None: all but those on this machine.
    pub verify: Option<bool>,
}

impl Default for Access {
    fn default() -> Self {
        Self { logins: AuthFiles::of_this_user(), credentials: None, certificates: None, verify: None }
    }
}

/// Why a registry does not do what was asked. The text begins after the registry's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No answer.
    #[error("cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// TLS failed.
    #[error("cannot be trusted: {reason}")]
    Untrusted {
        /// Why.
        reason: String,
    },
    /// This machine's own certificates cannot be used.
    #[error("certificates for it cannot be used: {reason}")]
    Certificates {
        /// Which, and why.
        reason: String,
    },
    /// It wants to know who asks.
    #[error("wants a login{}", after_colon(.message))]
    LoginNeeded {
        /// Its words.
        message: String,
    },
    /// The login that was sent is none.
    #[error("refuses the login")]
    LoginRefused,
    /// Not for this login.
    #[error("does not allow it{}", after_colon(.message))]
    Denied {
        /// Its words.
        message: String,
    },
    /// There is nothing of that name.
    #[error("has no {what}")]
    NotThere {
        /// What was asked for.
        what: String,
    },
    /// Too much was asked, by us or by others.
    #[error("has too much to do{}", .seconds.map_or(String::new(), |seconds| format!(", and asks to wait {seconds} s")))]
    Busy {
        /// After how many seconds one may ask again.
        seconds: Option<u64>,
    },
    /// Another refusal.
    #[error("answers with status {status}{}", after_colon(.message))]
    Status {
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It does not say what the specification asks for.
    #[error("does not keep to the protocol: {reason}")]
    Malformed {
        /// In what.
        reason: String,
    },
}

impl Fault {
    fn malformed(reason: String) -> Self {
        Self::Malformed { reason }
    }

    /// What to do about it: one sentence.
    pub fn advice(&self, registry: &str) -> String {
        match self {
            Self::Unreachable { .. } => {
                "check the registry's name and this machine's network and proxy settings, then try again; \
                 what was fetched is kept"
                    .to_owned()
            }
            Self::Untrusted { .. } => format!(
                "put the certificate of its authority into /etc/containers/certs.d/{registry}/ca.crt, or, if nobody can listen in, \
                 use --tls-verify=false"
            ),
            Self::Certificates { .. } => "mend or remove that file".to_owned(),
            Self::LoginNeeded { .. } => {
                format!("check the image's name; if it is right: coracle login {registry}")
            }
            Self::LoginRefused => format!("give name and password anew: coracle login {registry}"),
            Self::Denied { .. } => format!("use a login that may do this: coracle login {registry}"),
            Self::NotThere { .. } => "check the spelling of name and tag".to_owned(),
            Self::Busy { .. } => format!("wait, or log in for a higher limit: coracle login {registry}"),
            Self::Status { .. } | Self::Malformed { .. } => {
                "try again later, or ask those who run the registry".to_owned()
            }
        }
    }
}

fn after_colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// One repository of a registry.
pub(crate) struct Repository {
    server: Server,
    /// As people write it: `docker.io`, `host:5000`.
    registry: String,
    /// The path: `library/debian`.
    path: String,
}

/// Asks a registry (`docker.io`, `host:5000`) whether it takes the login in `access`.
pub fn login(registry: &str, access: &Access) -> Result<()> {
    // The same rules as for the host of an image's name.
    let reference = format!("{registry}/x").parse::<Reference>().ok();
    if reference.is_none_or(|reference| reference.name().split('/').next() != Some(registry)) {
        return Err(Error::BadReference {
            text: registry.to_owned(),
            reason: "a registry is a host name, with a port if need be",
        });
    }
    let in_registry = |fault| Error::Registry { registry: registry.to_owned(), fault };
    let server = server(registry, access, access.credentials.clone(), Vec::new()).map_err(in_registry)?;
    let url = format!("{}/v2/", server.origin);
    let answer = server.send(&Call::new(Method::GET, &url)).map_err(in_registry)?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        StatusCode::UNAUTHORIZED => Err(in_registry(Fault::LoginRefused)),
        _ => Err(in_registry(server.refusal(answer, "answer to the protocol's first question"))),
    }
}

/// Finds out how a registry wants to be talked to.
fn server(
    registry: &str,
    access: &Access,
    credentials: Option<Credentials>,
    scopes: Vec<String>,
) -> http::Result<Server> {
    let host = if registry == "docker.io" { DOCKER_IO } else { registry };
    let authorizer = Authorizer { credentials, scopes, verify: access.verify };
    // As docker has it: what is on this machine may speak without TLS.
    let verify = access.verify.unwrap_or_else(|| !is_on_this_machine(host));
    let tls = trust::tls(registry, access.certificates.as_deref(), verify)?;
    let server = Server::new(host, tls, authorizer);
    if verify || server.speaks_tls()? { Ok(server) } else { Ok(server.without_tls(host)) }
}

impl Repository {
    /// Finds out how the registry of `reference` wants to be talked to.
    pub(crate) fn open(reference: &Reference, access: &Access) -> Result<Arc<Self>> {
        let (_, path) = reference.name().split_once('/').unwrap_or((reference.name(), ""));
        Self::open_for(reference, access, vec![format!("repository:{path}:pull")])
    }

    /// The same to send something there. Blobs may be mounted from the repositories `mounted`.
    pub(crate) fn open_to_push(
        reference: &Reference,
        access: &Access,
        mounted: &[String],
    ) -> Result<Arc<Self>> {
        let (_, path) = reference.name().split_once('/').unwrap_or((reference.name(), ""));
        let mut scopes = vec![format!("repository:{path}:pull,push")];
        scopes.extend(mounted.iter().map(|path| format!("repository:{path}:pull")));
        Self::open_for(reference, access, scopes)
    }

    fn open_for(reference: &Reference, access: &Access, scopes: Vec<String>) -> Result<Arc<Self>> {
        let (registry, path) = reference.name().split_once('/').unwrap_or((reference.name(), ""));
        let in_registry = |fault| Error::Registry { registry: registry.to_owned(), fault };
        let credentials = match &access.credentials {
            Some(given) => Some(given.clone()),
            None => access.logins.find(reference.name())?,
        };
        let server = server(registry, access, credentials, scopes).map_err(in_registry)?;
        Ok(Arc::new(Self { server, registry: registry.to_owned(), path: path.to_owned() }))
    }

    pub(crate) fn error(&self, fault: Fault) -> Error {
        Error::Registry { registry: self.registry.clone(), fault }
    }

    fn url(&self, kind: &str, what: &str) -> String {
        format!("{}/v2/{}/{kind}/{what}", self.server.origin, self.path)
    }

    /// The manifest or index that a tag or digest means, with its bytes.
    pub(crate) fn manifest(&self, tag_or_digest: &str) -> Result<(Descriptor, Vec<u8>)> {
        let accepted = [media::INDEX, media::MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST].join(", ");
        let url = self.url("manifests", tag_or_digest);
        let what = format!(
            "image {}{}{tag_or_digest}",
            self.path,
            if tag_or_digest.contains(':') { '@' } else { ':' }
        );
        let call = Call::new(Method::GET, &url).with(header::ACCEPT, accepted);
        let answer = self.ask(&call, &what)?;
        let mut media_type = content_type(&answer);
        let bytes = http::document(answer).map_err(|fault| self.error(fault))?;
        // What the document says of itself is covered by its digest.
        if let Ok(own) = serde_json::from_slice::<MediaType>(&bytes) {
            media_type = own.media_type;
        }
        if media_type.contains("docker.distribution.manifest.v1") {
            let reason = "it is of docker's first form, which no tool has written since 2017; push it again with a newer one";
            return Err(Error::BadManifest { digest: Digest::of(&bytes), reason });
        }
        let descriptor = Descriptor::of(&bytes, &media_type);
        Ok((descriptor, bytes))
    }

    /// A small blob: a configuration. Not verified.
    pub(crate) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let url = self.url("blobs", &descriptor.digest.to_string());
        let answer = self.ask(&Call::new(Method::GET, &url), &format!("blob {}", descriptor.digest))?;
        http::document(answer).map_err(|fault| self.error(fault))
    }

    /// A blob from byte `offset` on, and where it really begins: a server may not know ranges.
    fn blob_from(&self, digest: Digest, offset: u64) -> http::Result<(u64, Response<Body>)> {
        let url = self.url("blobs", &digest.to_string());
        let mut call = Call::new(Method::GET, &url);
        if offset > 0 {
            call = call.with(header::RANGE, format!("bytes={offset}-"));
        }
        let answer = self.server.send(&call)?;
        match answer.status() {
            StatusCode::OK => Ok((0, answer)),
            StatusCode::PARTIAL_CONTENT if begins_at(&answer) == Some(offset) => Ok((offset, answer)),
            // One that cannot give that part may give the whole.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
                self.blob_from(digest, 0)
            }
            _ => Err(self.server.refusal(answer, &format!("blob {digest}"))),
        }
    }

    fn ask(&self, call: &Call<'_>, what: &str) -> Result<Response<Body>> {
        let answer = self.server.send(call).map_err(|fault| self.error(fault))?;
        if answer.status() == StatusCode::OK {
            Ok(answer)
        } else {
            Err(self.error(self.server.refusal(answer, what)))
        }
    }
}

/// The field by which a manifest names its kind.
#[derive(serde::Deserialize)]
struct MediaType {
    #[serde(rename = "mediaType")]
    media_type: String,
}

fn content_type(answer: &Response<Body>) -> String {
    let value =
        answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

/// The first byte's number in a `Content-Range: bytes 5-9/10`.
fn begins_at(answer: &Response<Body>) -> Option<u64> {
    let range = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Whether a host is `localhost` or an address of the loopback interface, with or without a port.
fn is_on_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_on_this_machine;

    #[test]
    fn only_the_loopback_interface_is_this_machine() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::1]"] {
            assert!(is_on_this_machine(host), "{host}");
        }
        for host in
            ["localhost.example", "128.0.0.1", "[::2]:5000", "registry.example:5000", "127.0.0.1.example"]
        {
            assert!(!is_on_this_machine(host), "{host}");
        }
    }
}
