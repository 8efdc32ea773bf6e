//! A token server for docker-registry: it gives whoever knows the login what is asked for, signed by a key of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::registry::{PASSWORD, USER};

pub const SERVICE: &str = "test-registry";
pub const ISSUER: &str = "test-issuer";

/// The server, and the addresses that it was asked for.
pub struct Tokens {
    pub realm: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    /// With the key and the certificate `token.key` and `token.crt` of `directory`.
    pub fn start(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (known, directory) = (Arc::clone(&asked), directory.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &known, &directory);
            }
        });
        Self { realm, asked }
    }

    /// The scopes of each question.
    pub fn scopes(&self) -> Vec<Vec<String>> {
        self.asked.lock().unwrap().iter().map(|path| scopes(path)).collect()
    }
}

fn scopes(path: &str) -> Vec<String> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    values.map(|value| value.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/")).collect()
}

fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>, directory: &Path) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| Some(line.split(' ').nth(1)?.to_owned())) else { return };
    let login = format!("Basic {}", base64(format!("{USER}:{PASSWORD}").as_bytes()));
    let knows = lines
        .take_while(|line| !line.is_empty())
        .any(|line| line.to_ascii_lowercase().starts_with("authorization:") && line.ends_with(&login));
    asked.lock().unwrap().push(path.clone());
    let (status, body) = if knows {
        (200, serde_json::json!({ "token": token(&scopes(&path), directory) }).to_string())
    } else {
        (401, String::new())
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// A JSON web token (RFC 7519) with the access that docker's registry looks for.
fn token(scopes: &[String], directory: &Path) -> String {
    let access: Vec<_> = scopes
        .iter()
        .map(|scope| {
            let parts: Vec<&str> = scope.split(':').collect();
            let actions: Vec<&str> = parts[2].split(',').collect();
            serde_json::json!({ "type": parts[0], "name": parts[1], "actions": actions })
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let certificate = std::fs::read_to_string(directory.join("token.crt")).unwrap();
    let der: String = certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    let header = serde_json::json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = serde_json::json!({
        "iss": ISSUER, "sub": USER, "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1", "access": access,
    });
    let text = format!("{}.{}", url(header.to_string().as_bytes()), url(claims.to_string().as_bytes()));
    let signature = openssl(&["dgst", "-sha256", "-sign"], &directory.join("token.key"), text.as_bytes());
    format!("{text}.{}", url(&signature))
}

fn openssl(args: &[&str], key: &Path, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(args).arg(key).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// The key and the certificate that the registry knows it by.
pub fn make_key(directory: &Path) -> PathBuf {
    let (key, certificate) = (directory.join("token.key"), directory.join("token.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"]);
    let made = openssl.arg("-keyout").arg(key).arg("-out").arg(&certificate).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    certificate
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number =
            part.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for at in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= part.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The form for addresses (RFC 4648 section 5), without padding.
fn url(bytes: &[u8]) -> String {
    base64(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}
