//! Blobs and manifests into a registry: what the distribution specification calls push.
//!
//! A blob that is there is not sent. One that another repository of the same registry has is mounted from it. What is sent goes in as few
//! chunks as the registry takes; after a cut it says itself how much of the blob it has, and where it has lost that, all begins anew.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{Method, Response, StatusCode, header};
use ureq::{Body, ResponseExt as _};

use super::http::{ATTEMPTS, Call, Content, FIRST_PAUSE, LONGEST_PAUSE, is_passing, location, retry_after};
use super::{Fault, Repository};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::freight::Passage;
use crate::oci::{Descriptor, media};
use crate::store::to_json;

/// Up to so many bytes go with the request that ends the upload: one question less.
const SMALL: u64 = 256 << 10;
/// The chunks for a registry, or what is before it, that takes no blob as a whole.
const CHUNK: u64 = 16 << 20;
const CHUNK_MIN: u64 = 1 << 20;
/// The content type of everything that is no manifest.
const BYTES: &str = "application/octet-stream";

/// How a blob came to be where it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was there.
    Already,
    /// From another repository.
    Mounted,
    /// As bytes.
    Whole,
}

/// An upload that has begun.
struct Session {
    /// Where the next request goes.
    url: String,
    /// As many bytes has the registry.
    offset: u64,
    /// It takes no shorter chunk, but for the last one.
    chunk_min: u64,
}

enum Begun {
    Mounted,
    Session(Session),
}

/// What kept a step from being done.
enum Setback {
    /// It may go better in a moment.
    Passing(Fault, Option<Duration>),
    /// The registry knows nothing of the upload any more.
    Lost(Fault),
    /// It takes no chunk of that length.
    TooLong(Fault),
    /// It takes no chunks.
    NoChunks(Fault),
    Final(Error),
}

/// How a blob is cut up.
#[derive(Clone, Copy)]
struct Manner {
    /// With the request that ends the upload, without chunks.
    at_once: bool,
    /// The most bytes of a chunk.
    chunk: u64,
}

impl Repository {
    /// Makes the registry have a blob; `from` is a repository of the same registry that may have it.
    pub(crate) fn send_blob(&self, passage: &Passage<'_>, from: Option<&str>) -> Result<Sent> {
        if self.has_blob(passage.digest())? {
            return Ok(Sent::Already);
        }
        match self.begin(passage.digest(), from)? {
            Begun::Mounted => Ok(Sent::Mounted),
            Begun::Session(session) => self.send_bytes(passage, session),
        }
    }

    /// Whether the registry has a blob.
    pub(crate) fn has_blob(&self, digest: Digest) -> Result<bool> {
        let url = self.url("blobs", &digest.to_string());
        let answer = self.server.send(&Call::new(Method::HEAD, &url)).map_err(|fault| self.error(fault))?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.error(self.server.refusal(answer, &format!("blob {digest}")))),
        }
    }

    fn begin(&self, digest: Digest, from: Option<&str>) -> Result<Begun> {
        let mut url = self.url("blobs", "uploads/");
        if let Some(from) = from {
            url = format!("{url}?mount={digest}&from={}", escaped(from));
        }
        let answer = self.server.send(&Call::new(Method::POST, &url)).map_err(|fault| self.error(fault))?;
        match answer.status() {
            StatusCode::CREATED if from.is_some() => Ok(Begun::Mounted),
            StatusCode::ACCEPTED => {
                let url = location(&answer).map_err(|fault| self.error(fault))?;
                let least =
                    answer.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok());
                let least = least.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
                Ok(Begun::Session(Session { url, offset: 0, chunk_min: CHUNK_MIN.max(least) }))
            }
            // One that knows no mounting may refuse the whole question, or this login the other repository.
            _ if from.is_some() => self.begin(digest, None),
            _ => Err(self.error(self.server.refusal(answer, &format!("repository {}", self.path)))),
        }
    }

    fn send_bytes(&self, passage: &Passage<'_>, mut session: Session) -> Result<Sent> {
        let mut manner = Manner { at_once: passage.size() <= SMALL, chunk: u64::MAX };
        let (mut failures, mut most) = (0, 0);
        loop {
            let Err(setback) = self.go_on(&mut session, passage, manner) else { return Ok(Sent::Whole) };
            // What cannot be read here is no fault of the registry's.
            if let Some(error) = passage.failure() {
                self.cancel(&session);
                return Err(error);
            }
            if session.offset > most {
                (failures, most) = (0, session.offset);
            }
            let is_shorter = matches!(setback, Setback::TooLong(_));
            // Chunks get shorter each time, which ends.
            failures = if is_shorter { 0 } else { failures + 1 };
            let (fault, pause) = match self.adapt(setback, &mut manner, &mut session, passage) {
                Ok((fault, wait)) => {
                    (fault, wait.map(|wait| wait.unwrap_or(FIRST_PAUSE * 2_u32.pow(failures - 1))))
                }
                Err(error) => {
                    self.cancel(&session);
                    return Err(error);
                }
            };
            if failures == ATTEMPTS || pause.is_some_and(|pause| pause > LONGEST_PAUSE) {
                self.cancel(&session);
                return Err(self.error(fault));
            }
            std::thread::sleep(pause.unwrap_or_default());
            // The last answer may have been lost, not the blob.
            if session.offset == passage.size() && self.has_blob(passage.digest())? {
                return Ok(Sent::Whole);
            }
            let known = if manner.at_once { None } else { self.resume(&session)? };
            // Of more than there is nothing can be made.
            let known = known.filter(|session| session.offset <= passage.size());
            session = match known {
                Some(session) => session,
                None => match self.anew(&session, passage.digest())? {
                    Begun::Session(session) => session,
                    Begun::Mounted => return Ok(Sent::Mounted),
                },
            };
        }
    }

    /// What is to be done otherwise after a setback, and how long to wait before: as long as the registry says, as long as usual, or not.
    fn adapt(
        &self,
        setback: Setback,
        manner: &mut Manner,
        session: &mut Session,
        passage: &Passage<'_>,
    ) -> Result<(Fault, Option<Option<Duration>>)> {
        let tried = manner.chunk.min(passage.size() - session.offset);
        match setback {
            Setback::Passing(fault, wait) => Ok((fault, Some(wait))),
            Setback::Lost(fault) => {
                session.url.clear();
                Ok((fault, Some(None)))
            }
            Setback::TooLong(fault) if !manner.at_once && tried > session.chunk_min => {
                manner.chunk = (tried / 2).clamp(session.chunk_min, CHUNK.max(session.chunk_min));
                Ok((fault, None))
            }
            Setback::NoChunks(fault) if !manner.at_once => {
                manner.at_once = true;
                Ok((fault, None))
            }
            Setback::TooLong(fault) | Setback::NoChunks(fault) => Err(self.error(fault)),
            Setback::Final(error) => Err(error),
        }
    }

    /// Another upload in place of one that nobody goes on with.
    fn anew(&self, session: &Session, digest: Digest) -> Result<Begun> {
        self.cancel(session);
        self.begin(digest, None)
    }

    /// Asks how much of an upload the registry has; None where it does not know it.
    fn resume(&self, session: &Session) -> Result<Option<Session>> {
        if session.url.is_empty() {
            return Ok(None);
        }
        let answer =
            self.server.send(&Call::new(Method::GET, &session.url)).map_err(|fault| self.error(fault))?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let url = location(&answer).unwrap_or_else(|_| session.url.clone());
        Ok(Some(Session { url, offset: received(&answer).unwrap_or(0), chunk_min: session.chunk_min }))
    }

    /// Sends what the registry has not yet, and ends the upload.
    fn go_on(
        &self,
        session: &mut Session,
        passage: &Passage<'_>,
        manner: Manner,
    ) -> std::result::Result<(), Setback> {
        let mut content = (session.offset, passage.size());
        if !manner.at_once {
            while session.offset < passage.size() {
                let end = session.offset.saturating_add(manner.chunk).min(passage.size());
                self.send_chunk(session, passage, end)?;
            }
            passage.finish().map_err(Setback::Final)?;
            content = (passage.size(), passage.size());
        }
        passage.begin(content.0);
        let open = || passage.reader(content.0, content.1);
        let url = with_digest(&session.url, passage.digest());
        let call = Call::new(Method::PUT, &url)
            .with(header::CONTENT_TYPE, BYTES)
            .sending(Content::Stream(content.1 - content.0, &open));
        let answer = self.server.send_authorized(&call).map_err(|fault| self.no_answer(fault))?;
        if !answer.status().is_success() {
            return Err(self.setback(answer));
        }
        passage.finish().map_err(Setback::Final)?;
        self.check_digest(&answer, passage.digest()).map_err(Setback::Final)
    }

    fn send_chunk(
        &self,
        session: &mut Session,
        passage: &Passage<'_>,
        end: u64,
    ) -> std::result::Result<(), Setback> {
        let begin = session.offset;
        passage.begin(begin);
        let open = || passage.reader(begin, end);
        let call = Call::new(Method::PATCH, &session.url)
            .with(header::CONTENT_TYPE, BYTES)
            .with(header::CONTENT_RANGE, format!("{begin}-{}", end - 1))
            .sending(Content::Stream(end - begin, &open));
        let answer = self.server.send_authorized(&call).map_err(|fault| self.no_answer(fault))?;
        if !answer.status().is_success() {
            return Err(self.setback(answer));
        }
        // It may have taken a part only.
        let offset = received(&answer).filter(|offset| (begin + 1..=end).contains(offset)).unwrap_or(end);
        session.url = location(&answer).unwrap_or_else(|_| answer.get_uri().to_string());
        session.offset = offset;
        Ok(())
    }

    /// A cut connection passes; what this machine does not trust does not.
    fn no_answer(&self, fault: Fault) -> Setback {
        match fault {
            Fault::Unreachable { .. } => Setback::Passing(fault, None),
            _ => Setback::Final(self.error(fault)),
        }
    }

    fn setback(&self, answer: Response<Body>) -> Setback {
        let (status, wait) = (answer.status(), retry_after(&answer));
        let fault = self.server.refusal(answer, &format!("upload for {}", self.path));
        match status.as_u16() {
            404 | 410 => Setback::Lost(fault),
            // What was asked for is not where the registry stands.
            416 => Setback::Passing(fault, None),
            413 => Setback::TooLong(fault),
            405 | 501 => Setback::NoChunks(fault),
            _ if is_passing(status) => Setback::Passing(fault, wait),
            _ => Setback::Final(self.error(fault)),
        }
    }

    /// Tells the registry that nothing more comes. It forgets such uploads by itself, too.
    fn cancel(&self, session: &Session) {
        if !session.url.is_empty() {
            let _ = self.server.send_authorized(&Call::new(Method::DELETE, &session.url));
        }
    }

    /// Makes the registry have a manifest or index, under a tag if there is one.
    ///
    /// What refers to another manifest is found by those who ask for that one: where the registry does not see to it, by the tag that the
    /// specification has for it.
    pub(crate) fn send_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        tag: Option<&str>,
    ) -> Result<()> {
        let answer = self.put_manifest(descriptor, bytes, tag)?;
        let document: Referring = serde_json::from_slice(bytes).unwrap_or_default();
        match &document.subject {
            Some(subject) if !answer.headers().contains_key("oci-subject") => {
                self.add_referrer(subject.digest, document.entry(descriptor))
            }
            _ => Ok(()),
        }
    }

    fn put_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        tag: Option<&str>,
    ) -> Result<Response<Body>> {
        let url = self.url("manifests", &tag.map_or_else(|| descriptor.digest.to_string(), str::to_owned));
        let call = Call::new(Method::PUT, &url)
            .with(header::CONTENT_TYPE, descriptor.media_type.as_str())
            .sending(Content::Bytes(bytes));
        let answer = self.server.send(&call).map_err(|fault| self.error(fault))?;
        if !answer.status().is_success() {
            return Err(self.error(self.server.refusal(answer, &format!("repository {}", self.path))));
        }
        self.check_digest(&answer, descriptor.digest)?;
        Ok(answer)
    }

    fn check_digest(&self, answer: &Response<Body>, expected: Digest) -> Result<()> {
        let said = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match said.and_then(|text| text.parse::<Digest>().ok()) {
            Some(found) if found != expected => {
                let reason = format!("it was sent {expected}, and says that it got {found}");
                Err(self.error(Fault::malformed(reason)))
            }
            _ => Ok(()),
        }
    }

    /// Adds a manifest to the index under the tag for those that refer to `subject`.
    fn add_referrer(&self, subject: Digest, entry: Value) -> Result<()> {
        let tag = format!("sha256-{}", subject.hex());
        let mut index: Value = match self.manifest(&tag) {
            Ok((_, bytes)) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(Error::Registry { fault: Fault::NotThere { .. }, .. }) => Value::Null,
            Err(error) => return Err(error),
        };
        if !index["manifests"].is_array() {
            index = json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": [] });
        }
        if let Some(entries) = index["manifests"].as_array_mut() {
            if entries.iter().any(|known| known["digest"] == entry["digest"]) {
                return Ok(());
            }
            entries.push(entry);
        }
        let bytes = to_json(&index);
        self.put_manifest(&Descriptor::of(&bytes, media::INDEX), &bytes, Some(&tag)).map(drop)
    }
}

/// The fields by which a manifest refers to another one.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Referring {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    annotations: Option<Value>,
}

impl Referring {
    /// The entry in an index of those that refer to something.
    fn entry(&self, descriptor: &Descriptor) -> Value {
        let kind = self.artifact_type.as_ref().or(self.config.as_ref().map(|config| &config.media_type));
        let mut entry = json!({
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        });
        if let Some(kind) = kind {
            entry["artifactType"] = json!(kind);
        }
        if let Some(annotations) = &self.annotations {
            entry["annotations"] = annotations.clone();
        }
        entry
    }
}

/// How many bytes an answer says that the registry has: `Range: 0-9` are ten.
fn received(answer: &Response<Body>) -> Option<u64> {
    let range = answer.headers().get(header::RANGE)?.to_str().ok()?.trim();
    let last: u64 = range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse().ok()?;
    // Nothing at all is written `0-0` too.
    if last == 0 { None } else { last.checked_add(1) }
}

/// The address that ends an upload.
fn with_digest(url: &str, digest: Digest) -> String {
    format!("{url}{}digest={digest}", if url.contains('?') { '&' } else { '?' })
}

/// A repository's path as part of a query.
fn escaped(path: &str) -> String {
    path.replace('/', "%2F")
}
