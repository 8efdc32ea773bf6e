use std::path::PathBuf;
use std::process::ExitCode;

use engine::Roots;
use image::AuthFiles;

use crate::error::Error;
use crate::table::write_out;

/// Forget the login for a registry
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Forget all logins
    #[arg(short, long, conflicts_with = "host")]
    all: bool,
    /// The file with the logins [default: $REGISTRY_AUTH_FILE, or podman's and docker's]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// The registry's host
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    host: String,
}

pub fn run(_: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let logins = arguments.authfile.clone().map_or_else(AuthFiles::of_this_user, AuthFiles::only);
    let host = image::registry_of(&arguments.host);
    let host = (!arguments.all).then_some(host.as_str());
    let failed = |error: image::Error| {
        Error::from(error).doing("cannot forget the login", "see that the file can be written")
    };
    let changed = logins.forget(host).map_err(failed)?;
    if changed.is_empty() {
        let what = host.map_or("any registry".to_owned(), |host| format!("\"{host}\""));
        return Err(Error::new(
            format!("there is no login for {what}"),
            None,
            Some(
                "name the registry as in the names of its images, for example registry.example:5000"
                    .to_owned(),
            ),
        ));
    }
    for path in changed {
        write_out(&format!("Removed the login from {}\n", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
