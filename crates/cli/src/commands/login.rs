use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use engine::Roots;
use image::{Access, AuthFiles, Credentials};

use crate::error::Error;
use crate::table::write_out;

/// How a registry is talked to
#[derive(Debug, clap::Args)]
pub struct Registry {
    /// The file with the logins [default: $REGISTRY_AUTH_FILE, or podman's and docker's]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// The directory with certificates to trust (*.crt) and to show (*.cert, *.key) [default: HOST in certs.d]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Require TLS and a certificate that this machine trusts [default: true, but for registries on this machine]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
}

impl Registry {
    /// What was typed; `login` is NAME:PASSWORD.
    pub fn access(&self, login: Option<&str>) -> Result<Access, Error> {
        Ok(Access {
            logins: self.logins(),
            credentials: login.map(|text| credentials("--creds", text)).transpose()?,
            certificates: self.cert_dir.clone(),
            verify: self.tls_verify,
        })
    }

    /// Where logins are kept.
    pub fn logins(&self) -> AuthFiles {
        self.authfile.clone().map_or_else(AuthFiles::of_this_user, AuthFiles::only)
    }
}

/// NAME:PASSWORD, as an option has it.
pub fn credentials(option: &str, text: &str) -> Result<Credentials, Error> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => {
            Ok(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
        }
        _ => Err(Error::new(
            format!("{option} cannot be understood"),
            Some("it has no colon between a name and a password".to_owned()),
            Some(format!("write {option} NAME:PASSWORD, or log in: coracle login")),
        )),
    }
}

/// Log in to a registry
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The password; other users can see it while the command runs
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    registry: Registry,
    /// The registry's host
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    host: String,
}

pub fn run(_: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let host = &image::registry_of(&arguments.host);
    let failed = |error: image::Error| {
        Error::from(error).doing(format!("cannot log in to \"{host}\""), "check the registry's name")
    };
    let user = match arguments.username {
        Some(user) => user,
        None => ask("Username: ", false)?,
    };
    let password = match (arguments.password, arguments.password_stdin) {
        (Some(password), _) => password,
        (None, true) => from_standard_input()?,
        (None, false) => ask("Password: ", true)?,
    };
    let credentials = Credentials::Password { user, password };
    let access = Access { credentials: Some(credentials.clone()), ..arguments.registry.access(None)? };
    image::login(host, &access).map_err(failed)?;
    let kept = access.logins.store(host, &credentials).map_err(failed)?;
    eprintln!("The login is kept in {kept}");
    write_out("Login Succeeded\n")?;
    Ok(ExitCode::SUCCESS)
}

fn from_standard_input() -> Result<String, Error> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Error::new("cannot read the password from standard input", Some(error.to_string()), None)
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal; a secret is not shown while it is typed.
fn ask(prompt: &str, is_secret: bool) -> Result<String, Error> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Error::new(
            "name and password are missing",
            Some("standard input is no terminal to ask for them".to_owned()),
            Some("give --username NAME --password-stdin, and the password on standard input".to_owned()),
        ));
    }
    let cannot =
        |error: std::io::Error| Error::new("cannot read from the terminal", Some(error.to_string()), None);
    if is_secret {
        return rpassword::prompt_password(prompt).map_err(cannot);
    }
    eprint!("{prompt}");
    let _ = std::io::stderr().flush();
    let mut text = String::new();
    input.read_line(&mut text).map_err(cannot)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
