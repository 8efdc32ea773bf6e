//! What a registry asks for before it answers: a token of its token server, or a name and a password.
//!
//! RFC 9110 section 11 (challenges), RFC 7617 (Basic), and the token protocol of docker's distribution
//! (<https://distribution.github.io/distribution/spec/auth/token/>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::Agent;
use ureq::http::Uri;

use super::credentials::Credentials;
use super::http::{self, Result, document, fault, is_passing};
use super::{Fault, is_on_this_machine, trust};

/// What one is called to token servers.
const CLIENT: &str = "coracle";

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case.
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The challenges of one header: they are separated by commas, as are the parameters of each.
    pub(super) fn parse_all(header: &str) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let word_end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
            if word_end == 0 {
                return challenges;
            }
            let (word, after) = rest.split_at(word_end);
            match after.strip_prefix('=') {
                Some(value) => {
                    let (value, after) = parameter_value(value);
                    if let Some(challenge) = challenges.last_mut() {
                        challenge.parameters.push((word.to_ascii_lowercase(), value));
                    }
                    rest = after;
                }
                None => {
                    challenges.push(Self { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                    rest = after;
                }
            }
        }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => return (value, &quoted[at + 1..]),
            other => {
                value.push(other);
                is_escaped = false;
            }
        }
    }
    (value, "")
}

/// Answers challenges for one repository.
pub(super) struct Authorizer {
    pub(super) credentials: Option<Credentials>,
    /// What the token shall allow: `repository:NAME:pull,push`.
    pub(super) scopes: Vec<String>,
    /// What was said about TLS; None: nothing.
    pub(super) verify: Option<bool>,
}

impl Authorizer {
    /// The value of the `Authorization` header that the challenges of `host` ask for; None where there is nothing to answer with.
    pub(super) fn answer(
        &self,
        agent: &Agent,
        host: &str,
        challenges: Vec<Challenge>,
    ) -> Result<Option<String>> {
        for challenge in &challenges {
            match challenge.scheme.as_str() {
                "bearer" => {
                    let token = self.token(agent, host, challenge)?;
                    return Ok(Some(format!("Bearer {token}")));
                }
                "basic" if matches!(self.credentials, Some(Credentials::Password { .. })) => {
                    return Ok(self.credentials.as_ref().and_then(basic));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn token(&self, agent: &Agent, host: &str, challenge: &Challenge) -> Result<String> {
        let realm = challenge.parameter("realm").unwrap_or_default();
        let agent = &self.agent_for(agent, host, realm)?;
        let mut fields = vec![("client_id", CLIENT)];
        fields.extend(challenge.parameter("service").map(|service| ("service", service)));
        fields.extend(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
        let answer = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let scope = self.scopes.join(" ");
                let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
                form.extend(fields.iter().filter(|(name, _)| *name != "scope"));
                form.push(("scope", &scope));
                agent.post(realm).send_form(form)
            }
            other => {
                let mut request = agent.get(realm);
                for (name, value) in fields {
                    request = request.query(name, value);
                }
                if let Some(value) = other.as_ref().and_then(basic) {
                    request = request.header("Authorization", value);
                }
                if let Some(Credentials::Password { user, .. }) = other {
                    request = request.query("account", user);
                }
                request.call()
            }
        };
        let answer = answer.map_err(fault)?;
        let code = answer.status();
        let status = code.as_u16();
        let bytes = document(answer)?;
        match status {
            200..300 => read_token(&bytes),
            401 if self.credentials.is_some() => Err(Fault::LoginRefused),
            401 => Err(Fault::LoginNeeded { message: String::new() }),
            403 => Err(Fault::Denied { message: String::new() }),
            // As where it cannot be reached: the whole question is asked again a moment later.
            _ if is_passing(code) => {
                Err(Fault::Unreachable { reason: format!("its token server answers with status {status}") })
            }
            _ => Err(Fault::Status { status, message: "from its token server".to_owned() }),
        }
    }

    /// What asks the token server: on the registry's own host, what asks the registry. Any other one is trusted by itself, unless the user
    /// said that nobody listens in.
    fn agent_for(&self, agent: &Agent, host: &str, realm: &str) -> Result<Agent> {
        let bad =
            || Fault::malformed(format!("it names a token server that is not to be trusted: {realm:?}"));
        let uri: Uri = realm.parse().map_err(|_| bad())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad()) };
        let is_local = is_on_this_machine(authority.as_str());
        match scheme {
            "https" if authority.as_str() == host => Ok(agent.clone()),
            "https" => {
                let verify = self.verify.unwrap_or(!is_local);
                Ok(http::agent(authority.as_str(), trust::tls(authority.as_str(), None, verify)?))
            }
            "http" if is_local || self.verify == Some(false) => Ok(agent.clone()),
            _ => Err(bad()),
        }
    }
}

/// The value of the header for a name and a password.
fn basic(credentials: &Credentials) -> Option<String> {
    match credentials {
        Credentials::Password { user, password } => {
            Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        Credentials::IdentityToken(_) => None,
    }
}

fn read_token(bytes: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let bad = || Fault::malformed("its token server gives no token".to_owned());
    let answer: Answer = serde_json::from_slice(bytes).map_err(|_| bad())?;
    // Whatever else is in it would end in a header.
    let is_token = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    answer.token.filter(is_token).or(answer.access_token.filter(is_token)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str) -> Vec<(String, Vec<(String, String)>)> {
        Challenge::parse_all(header).into_iter().map(|one| (one.scheme, one.parameters)).collect()
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let challenges = Challenge::parse_all(docker);
        assert_eq!(challenges.len(), 1);
        assert_eq!(challenges[0].parameter("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(challenges[0].parameter("realm"), Some("https://auth.docker.io/token"));
        let two = parsed(r#"Negotiate, Basic realm="a \"quoted\", name" , charset=UTF-8,BEARER realm=x"#);
        let names: Vec<&str> = two.iter().map(|(scheme, _)| scheme.as_str()).collect();
        assert_eq!(names, ["negotiate", "basic", "bearer"]);
        assert_eq!(two[1].1[0].1, "a \"quoted\", name");
        assert_eq!(two[2].1, [("realm".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn nonsense_ends() {
        for text in ["", ",", "=", "==", "\"", "a=\"", "Bearer realm=\"x", "Bearer =,=", "é=\"é\""] {
            let _ = Challenge::parse_all(text);
        }
    }

    #[test]
    fn a_token_that_is_no_header_is_refused() {
        assert_eq!(read_token(br#"{"token":"a.b"}"#).unwrap(), "a.b");
        assert_eq!(read_token(br#"{"token":"","access_token":"c"}"#).unwrap(), "c");
        for bad in [&br#"{"token":"a\r\nHost: x"}"#[..], b"{}", b"[]", b""] {
            assert!(read_token(bad).is_err());
        }
    }
}
