//! A root file system's archive becomes an image of one layer.

use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err::File;
use serde::Serialize;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::load::{HalfLayer, LoadOptions, Loaded, Unpacked, describe};
use crate::oci::{Config, Empty, Platform, RootFs};
use crate::plan::plan;
use crate::source::open_reader;
use crate::store::{Store, to_json};
use crate::stream::{Budget, Plain, Stored};
use crate::unpack;

impl Store {
    /// Makes an image of one layer of the tar archive `path` (`-` is the standard input), plain, gzip or zstd.
    ///
    /// `changes` are instructions as in a Dockerfile: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR`. The image's
    /// name is `options.name`, its platform `options.platform` or this machine's.
    pub fn import(&self, path: &Path, changes: &[String], options: &LoadOptions) -> Result<Loaded> {
        self.import_from(open_reader(path)?, changes, options)
    }

    /// The same, reading the archive from `reader`.
    pub fn import_from(
        &self,
        reader: Box<dyn Read + Send + '_>,
        changes: &[String],
        options: &LoadOptions,
    ) -> Result<Loaded> {
        let mut config = Config::default();
        for change in changes {
            apply(&mut config, change)?;
        }
        self.staged(|staging| {
            let layer = self.read_archive(reader, options, &staging.path.join("layer"))?;
            let Some(sums) = layer.sums else { return Err(no_sums()) };
            let bytes = config_json(config, sums.diff_id, options);
            let id = Digest::of(&bytes);
            let mut plan = plan(id, bytes, 1, &LoadOptions::default(), "the archive")?;
            plan.names = options.name.iter().map(|name| name.clone().or_latest()).collect();
            let layers = self.complete(&plan, vec![layer])?;
            describe(&mut plan, &layers);
            self.commit(&plan, &layers, &staging.path, staging)?;
            Ok(Loaded { names: plan.names, id })
        })
    }

    fn read_archive(
        &self,
        reader: Box<dyn Read + Send + '_>,
        options: &LoadOptions,
        path: &Path,
    ) -> Result<HalfLayer> {
        let name = "of the archive";
        let budget = Budget::new(options.limits);
        let (blob, fs) = (path.join("blob"), path.join("fs"));
        fs_err::create_dir_all(&fs)?;
        let stored = Stored::new(reader, Some(File::create(&blob)?));
        let plain = Plain::new(stored, &budget).map_err(|error| unpack::io_error(name, error))?;
        let (sums, tree) = unpack::unpack(name, plain, &budget, self.form, &fs, &path.join("manifest"))?;
        let tree = Unpacked::NeedsLower(Box::new(tree));
        Ok(HalfLayer { path: path.to_owned(), blob: Some(blob), sums: Some(sums), tree })
    }
}

fn no_sums() -> Error {
    Error::NotAnArchive { source_name: "the archive".to_owned(), reason: "it was not read" }
}

fn config_json(config: Config, diff_id: Digest, options: &LoadOptions) -> Vec<u8> {
    #[derive(Serialize)]
    struct Image<'a> {
        created: String,
        architecture: String,
        os: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<String>,
        config: Config,
        rootfs: RootFs,
        history: [History<'a>; 1],
    }
    #[derive(Serialize)]
    struct History<'a> {
        created: String,
        comment: &'a str,
    }
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let comment = options.message.as_deref().unwrap_or("imported from an archive");
    let created = rfc3339(SystemTime::now());
    to_json(&Image {
        created: created.clone(),
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        config,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
        history: [History { created, comment }],
    })
}

/// Applies one instruction of a Dockerfile to a configuration.
pub(crate) fn apply(config: &mut Config, change: &str) -> Result<()> {
    let bad = |reason| Error::BadChange { text: change.to_owned(), reason };
    let (word, rest) =
        change.trim().split_once(char::is_whitespace).ok_or_else(|| bad("it has no argument"))?;
    let rest = rest.trim();
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(rest),
        "ENTRYPOINT" => config.entrypoint = command(rest),
        "ENV" => {
            for (name, value) in pairs(rest).ok_or_else(|| bad("ENV takes NAME=value"))? {
                let begin = format!("{name}=");
                config.env.retain(|known| !known.starts_with(&begin));
                config.env.push(format!("{begin}{value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).ok_or_else(|| bad("LABEL takes NAME=value"))?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                if number.parse::<u16>().is_err() || !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err(bad("EXPOSE takes PORT or PORT/tcp, /udp, /sctp"));
                }
                config.exposed_ports.insert(format!("{number}/{protocol}"), Empty {});
            }
        }
        "VOLUME" => {
            let paths = match serde_json::from_str::<Vec<String>>(rest) {
                Ok(paths) => paths,
                Err(_) => rest.split_whitespace().map(str::to_owned).collect(),
            };
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" if rest.starts_with('/') => config.working_dir = rest.to_owned(),
        "WORKDIR" => return Err(bad("WORKDIR takes an absolute path")),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        _ => {
            return Err(bad(
                "only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR can be changed",
            ));
        }
    }
    Ok(())
}

/// `["a", "b"]`, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| ["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

/// `A=b "C=d e" F="g h"`, or `NAME value` as old Dockerfiles have it.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut escaped) = (String::new(), None, false);
    for c in text.chars() {
        match (c, quote) {
            (c, _) if escaped => {
                word.push(c);
                escaped = false;
            }
            ('\\', None | Some('"')) => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, _) => word.push(c),
        }
    }
    if quote.is_some() || escaped {
        return None;
    }
    words.extend((!word.is_empty()).then_some(word));
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    words.into_iter().map(pair).collect()
}

/// A time as the specification writes it: RFC 3339, UTC. The days are counted in the Gregorian calendar's cycle of 400 years,
/// from the 1st of March, so that the leap day is a year's last.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (cycle, day_of_cycle) = (shifted / 146_097, shifted % 146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn writes_times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn applies_changes() {
        let mut config = Config::default();
        for change in [
            "ENV A=1 B=\"two words\"",
            "env A 3",
            r#"CMD ["/bin/sh"]"#,
            "ENTRYPOINT echo hi",
            "EXPOSE 80 53/udp",
            "VOLUME /data",
            "WORKDIR /srv",
            "USER 1:2",
            "LABEL x=y",
            "STOPSIGNAL SIGINT",
        ] {
            apply(&mut config, change).unwrap();
        }
        assert_eq!(config.env, ["B=two words", "A=3"]);
        assert_eq!(config.cmd, ["/bin/sh"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        for bad in ["RUN x", "CMD", "", "WORKDIR x", "EXPOSE x", "ENV \"A=b"] {
            assert!(apply(&mut config, bad).is_err(), "{bad}");
        }
    }
}
