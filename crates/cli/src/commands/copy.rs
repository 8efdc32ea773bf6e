use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use engine::Roots;
use image::{Access, AuthFiles, CopyOptions, Layers, Location, ManifestForm, Recipe, Source, Which};

use crate::commands::archive;
use crate::commands::login::credentials;
use crate::commands::push::{algorithm, check_level, write_digest};
use crate::error::Error;
use crate::progress;
use crate::table::write_out;

/// Copy an image from one place to another as it is, without unpacking it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Places: docker://NAME[:TAG][@DIGEST], oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG], dir:DIR, \
                  and the images that are here: coracle:NAME, or the name alone. Digests stay what they are, but for plain layers: on their way \
                  to a registry they are compressed."
)]
pub struct Arguments {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Copy all images of an index; of one that is here, all that are here
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// Which image of an index, as os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Write manifests in this form: oci, or v2s2 for docker's
    #[arg(short, long, value_name = "FORM")]
    format: Option<String>,
    /// Change nothing that would change a digest
    #[arg(long, conflicts_with_all = ["format", "dest_compress_format", "dest_compress_level"])]
    preserve_digests: bool,
    /// Compress layers by gzip or zstd, also those that are compressed in another way
    #[arg(long, value_name = "FORMAT")]
    dest_compress_format: Option<String>,
    /// How much to compress them: 1 to 9 by gzip, 1 to 20 by zstd
    #[arg(long, value_name = "LEVEL", allow_hyphen_values = true)]
    dest_compress_level: Option<i32>,
    /// Write the digest of what was copied into this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    to: To,
    /// The file with the logins for both [default: $REGISTRY_AUTH_FILE, or podman's and docker's]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Where it is
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where it shall be
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// How the source's registry is talked to
#[derive(Debug, clap::Args)]
struct From {
    /// Name and password for the registry of the source
    #[arg(long = "src-creds", value_name = "NAME:PASSWORD")]
    from_creds: Option<String>,
    /// The directory with certificates for it
    #[arg(long = "src-cert-dir", value_name = "DIR")]
    from_cert_dir: Option<PathBuf>,
    /// Require TLS and a certificate that this machine trusts [default: true, but for registries on this machine]
    #[arg(long = "src-tls-verify", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    from_tls_verify: Option<bool>,
    /// The file with the login for it
    #[arg(long = "src-authfile", value_name = "FILE")]
    from_authfile: Option<PathBuf>,
}

/// How the destination's is
#[derive(Debug, clap::Args)]
struct To {
    /// Name and password for the registry of the destination
    #[arg(long = "dest-creds", value_name = "NAME:PASSWORD")]
    to_creds: Option<String>,
    /// The directory with certificates for it
    #[arg(long = "dest-cert-dir", value_name = "DIR")]
    to_cert_dir: Option<PathBuf>,
    /// Require TLS and a certificate that this machine trusts [default: true, but for registries on this machine]
    #[arg(long = "dest-tls-verify", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    to_tls_verify: Option<bool>,
    /// The file with the login for it
    #[arg(long = "dest-authfile", value_name = "FILE")]
    to_authfile: Option<PathBuf>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let Arguments { source, destination, .. } = &arguments;
    let failed = |error: image::Error| {
        Error::from(error).doing(format!("cannot copy \"{source}\" to \"{destination}\""), archive::CHECK)
    };
    let (from, to): (Location, Location) =
        (source.parse().map_err(failed)?, destination.parse().map_err(failed)?);
    let options = options(&arguments, &to)?;
    if let (Location::Store(_), Location::Store(_), Which::One(Some(_))) = (&from, &to, &options.which) {
        let cause = "a name of an image that is here means all platforms that it is here for".to_owned();
        let advice = "leave out --platform: run and push choose among them".to_owned();
        return Err(Error::new("--platform cannot be honoured", Some(cause), Some(advice)));
    }
    let store = archive::store(roots)?;
    let progress = Arc::clone(&options.progress);
    let copied =
        progress::shown(&progress, arguments.quiet, || store.copy(&from, &to, &options)).map_err(failed)?;
    write_digest(arguments.digestfile.as_ref(), &copied)?;
    if !arguments.quiet && !writes_to_standard_output(&to) {
        write_out(&format!("{}\n", copied.digest))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn options(arguments: &Arguments, to: &Location) -> Result<CopyOptions, Error> {
    let access = |login: &Option<String>,
                  option: &str,
                  authfile: &Option<PathBuf>,
                  directory: &Option<PathBuf>,
                  verify| {
        let logins = authfile.clone().or_else(|| arguments.authfile.clone());
        Ok::<_, Error>(Access {
            logins: logins.map_or_else(AuthFiles::of_this_user, AuthFiles::only),
            credentials: login.as_deref().map(|login| credentials(option, login)).transpose()?,
            certificates: directory.clone(),
            verify,
        })
    };
    let (from, to_options) = (&arguments.from, &arguments.to);
    let platform = arguments.platform.as_deref().map(engine::options::platform).transpose();
    let platform = platform.map_err(engine::Error::from)?;
    Ok(CopyOptions {
        from: access(
            &from.from_creds,
            "--src-creds",
            &from.from_authfile,
            &from.from_cert_dir,
            from.from_tls_verify,
        )?,
        to: access(
            &to_options.to_creds,
            "--dest-creds",
            &to_options.to_authfile,
            &to_options.to_cert_dir,
            to_options.to_tls_verify,
        )?,
        which: if arguments.all { Which::All } else { Which::One(platform) },
        recipe: recipe(arguments, to)?,
        ..CopyOptions::default()
    })
}

fn recipe(arguments: &Arguments, to: &Location) -> Result<Recipe, Error> {
    let is_registry = matches!(to, Location::Outside(Source::Registry(_)));
    let format = arguments.dest_compress_format.as_deref();
    let chosen = format.map(|text| algorithm("--dest-compress-format", text)).transpose()?;
    let level = arguments.dest_compress_level;
    let layers = match (chosen, level) {
        (Some(_), _) => Layers::Other,
        (None, Some(_)) => Layers::Plain,
        (None, None) if is_registry && !arguments.preserve_digests => Layers::Plain,
        (None, None) => Layers::Verbatim,
    };
    let algorithm = chosen.unwrap_or(Recipe::VERBATIM.algorithm);
    level.map_or(Ok(()), |level| check_level("--dest-compress-level", level, algorithm))?;
    let form = match arguments.format.as_deref() {
        None => None,
        Some("oci") => Some(ManifestForm::Oci),
        Some("v2s2") => Some(ManifestForm::Docker),
        Some(other) => {
            let cause = format!("there is no form \"{other}\" that manifests are written in here");
            let advice = "write oci or v2s2".to_owned();
            return Err(Error::new("--format cannot be understood", Some(cause), Some(advice)));
        }
    };
    let is_changed = layers != Layers::Verbatim || form.is_some();
    if is_changed && matches!(to, Location::Store(_)) {
        let cause = "the images that are here are kept as they came".to_owned();
        let advice = "leave out --format and --dest-compress-…, or copy to another place".to_owned();
        return Err(Error::new("what is loaded cannot be changed", Some(cause), Some(advice)));
    }
    Ok(Recipe { layers, algorithm, level, form })
}

fn writes_to_standard_output(to: &Location) -> bool {
    match to {
        Location::Outside(Source::OciArchive { path, .. } | Source::DockerArchive { path, .. }) => {
            path.as_os_str() == "-"
        }
        _ => false,
    }
}
