//! Whom a registry's certificate has to be from, and the certificate that we show: the system's store and `certs.d`.
//!
//! containers-certs.d(5): in `/etc/containers/certs.d/HOST[:PORT]` and `/etc/docker/certs.d/HOST[:PORT]`, `*.crt` are certificate
//! authorities, `NAME.cert` with `NAME.key` is the client's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::Fault;
use super::http::{Result, provider};

/// Below a user's `.config` and below these.
const PLACES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// How TLS is spoken with `host`, with the certificates in `directory` or in `certs.d`; without `verify`, with anybody.
pub(super) fn tls(host: &str, directory: Option<&Path>, verify: bool) -> Result<TlsConfig> {
    let mut roots: Vec<Certificate<'static>> = Vec::new();
    let mut client = None;
    for directory in directory.map_or_else(|| directories(host), |one| vec![one.to_owned()]) {
        for path in files(&directory)? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => roots.extend(certificates(&path)?),
                Some("cert") => client = Some(pair(&path)?),
                _ => {}
            }
        }
    }
    if verify {
        // What cannot be read of the system's store only makes it smaller.
        let system = rustls_native_certs::load_native_certs().certs;
        roots.extend(system.iter().map(|der| Certificate::from_der(der).to_owned()));
    }
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider())
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(client.map(|(chain, key)| ClientCert::new_with_certs(&chain, key)))
        .disable_verification(!verify)
        .build())
}

fn directories(host: &str) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
    if let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        places.insert(0, Path::new(&home).join(".config/containers/certs.d"));
    }
    places.into_iter().map(|place| place.join(host)).collect()
}

/// The files of a directory in the order of their names; none where there is no such directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Fault::Certificates { reason: error.to_string() }),
    };
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|error| Fault::Certificates { reason: error.to_string() })?;
    paths.sort();
    Ok(paths)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let bytes = fs_err::read(path).map_err(|error| Fault::Certificates { reason: error.to_string() })?;
    let found: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Fault::Certificates {
            reason: format!("{}: it has no certificate in PEM form", path.display()),
        });
    }
    Ok(found)
}

/// A client's certificate and the key beside it, which belong together.
fn pair(path: &Path) -> Result<(Vec<Certificate<'static>>, PrivateKey<'static>)> {
    let (chain, key) = (certificates(path)?, key(&path.with_extension("key"))?);
    let ders = chain.iter().map(|certificate| certificate.der().to_vec().into()).collect();
    let checked = PrivateKeyDer::try_from(key.der().to_vec())
        .map_err(str::to_owned)
        .and_then(|key| CertifiedKey::from_der(ders, key, &provider()).map_err(|error| error.to_string()));
    match checked {
        Ok(_) => Ok((chain, key)),
        Err(reason) => {
            Err(Fault::Certificates { reason: format!("{} and its key: {reason}", path.display()) })
        }
    }
}

fn key(path: &Path) -> Result<PrivateKey<'static>> {
    let bytes = fs_err::read(path).map_err(|error| Fault::Certificates { reason: error.to_string() })?;
    PrivateKey::from_pem(&bytes).map_err(|_| Fault::Certificates {
        reason: format!("{}: it has no private key in PEM form", path.display()),
    })
}
