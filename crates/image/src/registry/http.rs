//! HTTP to one registry: TLS, time limits, authorization, and patience with what passes.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Method, Request, Response, StatusCode, Uri, header};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, ResponseExt as _, SendBody};

use super::authorization::{Authorizer, Challenge};
use super::names::Names;
use super::{Fault, is_on_this_machine};

const CONNECT: Duration = Duration::from_secs(15);
/// A transfer that stands still for so long is given up, and an answer is not waited for any longer.
const SILENCE: Duration = Duration::from_secs(60);
/// How often something is asked that may be better a moment later.
pub(super) const ATTEMPTS: u32 = 5;
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A registry that wants a longer pause gets an error instead.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: u32 = 5;
/// As many addresses of one host are tried: what ureq has room for.
const ADDRESSES_MAX: usize = 16;
/// The most bytes of an answer that is no blob.
const ANSWER_MAX: u64 = 4 << 20;

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// What is asked; its content is sent again where it is asked again.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Absolute.
    pub(super) url: &'a str,
    pub(super) headers: Vec<(header::HeaderName, String)>,
    pub(super) content: Content<'a>,
}

/// What is sent with a POST, PATCH or PUT.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    /// So many bytes, which are opened each time that they are sent.
    Stream(u64, &'a Open<'a>),
}

type Open<'a> = dyn Fn() -> std::io::Result<Box<dyn Read + Send + 'a>> + 'a;

impl<'a> Content<'a> {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stream(length, _) => *length,
        }
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send + 'a>> {
        match *self {
            Self::Bytes(bytes) => Ok(Box::new(bytes)),
            Self::Stream(_, open) => open(),
        }
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, url: &'a str) -> Self {
        Self { method, url, headers: Vec::new(), content: Content::Bytes(&[]) }
    }

    pub(super) fn sending(mut self, content: Content<'a>) -> Self {
        self.content = content;
        self
    }

    fn has_content(&self) -> bool {
        matches!(self.method, Method::PUT | Method::POST | Method::PATCH)
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A registry that is talked to about one repository.
pub(super) struct Server {
    agent: Agent,
    /// `https://host:port`: nothing of ours is told to any other.
    pub(super) origin: String,
    authorizer: Authorizer,
    /// The header's value, once the registry has asked for one.
    authorization: Mutex<Option<String>>,
}

impl Server {
    /// A server at `host`. Nothing is sent yet.
    pub(super) fn new(host: &str, tls: TlsConfig, authorizer: Authorizer) -> Self {
        let origin = format!("https://{host}");
        Self { agent: agent(host, tls), origin, authorizer, authorization: Mutex::new(None) }
    }

    /// The same server by plain HTTP.
    pub(super) fn without_tls(self, host: &str) -> Self {
        Self { origin: format!("http://{host}"), ..self }
    }

    /// Asks until there is an answer that asking again would not change: neither a cut connection, nor 429, nor a fault of the
    /// server. 401 leads to a token or a login once.
    pub(super) fn send(&self, call: &Call<'_>) -> Result<Response<Body>> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let answer = self.send_authorized(call);
            let wait = match &answer {
                Err(Fault::Unreachable { .. }) => pause,
                Ok(answer) if is_passing(answer.status()) => retry_after(answer).unwrap_or(pause),
                _ => return answer,
            };
            if attempt == ATTEMPTS || wait > LONGEST_PAUSE {
                return answer;
            }
            std::thread::sleep(wait);
            pause *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    /// Asks once. 401 leads to a token or a login once; what has content follows to where it is sent on as what it is, and takes no login
    /// along to another host.
    pub(super) fn send_authorized(&self, call: &Call<'_>) -> Result<Response<Body>> {
        let mut url = call.url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let answer = self.send_to(call, &url)?;
            if !call.has_content() || !matches!(answer.status().as_u16(), 307 | 308) {
                return Ok(answer);
            }
            url = location(&answer)?;
        }
        Err(Fault::malformed("it sends from one address to the next without end".to_owned()))
    }

    fn send_to(&self, call: &Call<'_>, url: &str) -> Result<Response<Body>> {
        let known = self.authorization();
        let answer = self.send_once(call, url, known.as_deref())?;
        // What another host says to which we were sent on is no question of ours.
        let asks = answer.status() == StatusCode::UNAUTHORIZED && self.is_own(&answer.get_uri().to_string());
        if !asks || !self.is_own(url) {
            return Ok(answer);
        }
        if !self.authorize(&answer, known.as_deref())? {
            return Ok(answer);
        }
        let now = self.authorization();
        self.send_once(call, url, now.as_deref())
    }

    /// Whether it answers to the protocol's first question by TLS, whatever the answer. What is only slow is not taken for one that
    /// does not: then a password would go to it in the clear.
    pub(super) fn speaks_tls(&self) -> Result<bool> {
        let url = format!("{}/v2/", self.origin);
        match self.agent.get(&url).call() {
            Ok(_) => Ok(true),
            Err(error @ (ureq::Error::Timeout(_) | ureq::Error::HostNotFound)) => Err(fault(error)),
            Err(_) => Ok(false),
        }
    }

    fn send_once(&self, call: &Call<'_>, url: &str, authorization: Option<&str>) -> Result<Response<Body>> {
        let mut request = Request::builder().method(call.method.clone()).uri(url);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(value) = authorization.filter(|_| self.is_own(url)) {
            request = request.header(header::AUTHORIZATION, value);
        }
        let bad = |error: ureq::http::Error| Fault::malformed(error.to_string());
        if !call.has_content() {
            return self.agent.run(request.body(()).map_err(bad)?).map_err(fault);
        }
        let mut reader = call.content.open().map_err(|error| io_fault(&error))?;
        let request = request
            .header(header::CONTENT_LENGTH, call.content.length())
            .body(SendBody::from_reader(&mut reader))
            .map_err(bad)?;
        // The library would ask anew without the content.
        let request =
            self.agent.configure_request(request).max_redirects(0).max_redirects_will_error(false).build();
        self.agent.run(request).map_err(fault)
    }

    /// Gets what the registry's challenge asks for. Not, where that was tried already: `used` is what it just refused.
    fn authorize(&self, answer: &Response<Body>, used: Option<&str>) -> Result<bool> {
        let mut authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread has been here since.
        if authorization.is_some() && authorization.as_deref() != used {
            return Ok(true);
        }
        let values = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges =
            values.iter().filter_map(|value| value.to_str().ok()).flat_map(Challenge::parse_all).collect();
        let fresh = self.authorizer.answer(&self.agent, self.host(), challenges)?;
        let is_new = fresh.is_some() && fresh.as_deref() != used;
        *authorization = fresh;
        Ok(is_new)
    }

    fn authorization(&self) -> Option<String> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn host(&self) -> &str {
        self.origin.split("://").nth(1).unwrap_or_default()
    }

    /// What an answer that is no success means.
    pub(super) fn refusal(&self, answer: Response<Body>, what: &str) -> Fault {
        match refusal(answer, what) {
            Fault::LoginNeeded { .. } if self.authorizer.credentials.is_some() => Fault::LoginRefused,
            other => other,
        }
    }

    fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.origin).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }
}

/// What asks `host`. A proxy's own loopback interface is not this machine's.
pub(super) fn agent(host: &str, tls: TlsConfig) -> Agent {
    let config = Agent::config_builder();
    let config = if is_on_this_machine(host) { config.proxy(None) } else { config };
    let config = config
        .http_status_as_error(false)
        .max_redirects(REDIRECTS_MAX)
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .tls_config(tls)
        .build();
    Agent::with_parts(config, DefaultConnector::default(), OwnResolver(Names::of_this_machine()))
}

/// The cryptography that is linked in.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[derive(Debug)]
struct OwnResolver(Names);

impl Resolver for OwnResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("http") => 80,
            Some(scheme) if scheme.starts_with("socks") => 1080,
            _ => 443,
        });
        let mut resolved = self.empty();
        let addresses =
            self.0.addresses(host).map_err(|error| ureq::Error::Io(std::io::Error::other(error)))?;
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            resolved.push((address, port).into());
        }
        Ok(resolved)
    }
}

/// Whether the same question may be answered better a moment later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Where an answer leads: absolute, or relative to what was asked. Not from TLS to none.
pub(super) fn location(answer: &Response<Body>) -> Result<String> {
    let bad = |what: &str| Fault::malformed(format!("it leads {what}"));
    let value = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let value = value.map(str::trim).filter(|value| !value.is_empty()).ok_or_else(|| bad("nowhere"))?;
    let asked = answer.get_uri();
    let (scheme, host) =
        (asked.scheme_str().unwrap_or("https"), asked.authority().map_or("", |host| host.as_str()));
    // Another address may stand in the query.
    let is_whole = value
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let found = if is_whole {
        value.to_owned()
    } else if value.starts_with("//") {
        format!("{scheme}:{value}")
    } else if value.starts_with('/') {
        format!("{scheme}://{host}{value}")
    } else {
        let directory = asked.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{host}{directory}/{value}")
    };
    match found.parse::<Uri>().ok().as_ref().and_then(Uri::scheme_str) {
        Some("http") if scheme == "https" => Err(bad("from TLS to a connection without")),
        Some("http" | "https") => Ok(found),
        _ => Err(bad("to no address")),
    }
}

/// Seconds that the server wants to be left alone. A date, the other form, is left to our own pauses.
pub(super) fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What kept a question from being answered.
pub(super) fn fault(error: ureq::Error) -> Fault {
    match error {
        ureq::Error::Rustls(error) => tls_fault(&error),
        ureq::Error::Tls(reason) => Fault::Untrusted { reason: reason.to_owned() },
        ureq::Error::TlsRequired => Fault::Untrusted { reason: "it wants TLS".to_owned() },
        ureq::Error::Io(error) => io_fault(&error),
        ureq::Error::Timeout(_) => Fault::Unreachable { reason: "it does not answer in time".to_owned() },
        ureq::Error::HostNotFound => {
            Fault::Unreachable { reason: "there is no host of that name".to_owned() }
        }
        ureq::Error::ConnectionFailed => {
            Fault::Unreachable { reason: "no connection can be made".to_owned() }
        }
        other => Fault::malformed(other.to_string()),
    }
}

fn io_fault(error: &std::io::Error) -> Fault {
    // TLS errors travel inside those of the stream.
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls_fault(error),
        None => Fault::Unreachable { reason: error.to_string() },
    }
}

fn tls_fault(error: &rustls::Error) -> Fault {
    let text = error.to_string();
    // What `openssl req -x509` makes if nothing else is said.
    let reason = if text.contains("CaUsedAsEndEntity") {
        "its certificate is an authority's, not a host's: it needs one with basicConstraints=CA:FALSE"
            .to_owned()
    } else {
        text
    };
    Fault::Untrusted { reason }
}

/// A whole short answer.
pub(super) fn document(answer: Response<Body>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = answer.into_body().into_with_config().limit(u64::MAX).reader().take(ANSWER_MAX + 1);
    reader.read_to_end(&mut bytes).map_err(|error| io_fault(&error))?;
    if bytes.len() as u64 > ANSWER_MAX {
        return Err(Fault::malformed(format!("its answer is longer than {ANSWER_MAX} bytes")));
    }
    Ok(bytes)
}

fn refusal(answer: Response<Body>, what: &str) -> Fault {
    let status = answer.status().as_u16();
    let passes = retry_after(&answer);
    let message = document(answer).map(|bytes| message(&bytes)).unwrap_or_default();
    match status {
        401 => Fault::LoginNeeded { message },
        403 => Fault::Denied { message },
        404 => Fault::NotThere { what: what.to_owned() },
        429 => Fault::Busy { seconds: passes.map(|pause| pause.as_secs()) },
        _ => Fault::Status { status, message },
    }
}

/// The words in an answer's list of errors (distribution-spec, "Error Codes"), made fit for a terminal.
fn message(bytes: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(bytes) else { return String::new() };
    let texts =
        errors.into_iter().map(|Entry { code, message }| if message.is_empty() { code } else { message });
    let text = texts.collect::<Vec<_>>().join("; ");
    text.chars().filter(|character| !character.is_control()).take(200).collect()
}
