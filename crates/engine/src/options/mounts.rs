//! Mounts: `--volume`, `--mount`, `--tmpfs`.

use std::path::{Component, Path, PathBuf};

use super::{Error, Result, boolean, invalid, limits, unsupported};
use crate::spec::MountOption;

const NO_VOLUMES: &str = "this version has no volumes of its own, only directories of the host";

/// A destination: absolute, with `.`, `..` and double slashes resolved by name, not the root itself.
fn destination(option: &'static str, text: &str, path: &str) -> Result<PathBuf> {
    let wrong = |reason: &str| invalid(option, text, reason, "destinations that are absolute paths below /");
    if !path.starts_with('/') || path.contains('\0') {
        return Err(wrong("the destination is not an absolute path"));
    }
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    match clean.parent() {
        None => Err(wrong("the destination is the root itself")),
        Some(_) => Ok(clean),
    }
}

/// The source of a bind mount: absolute; `./` and `../` are taken from here.
fn source(option: &'static str, text: &str, path: &str) -> Result<PathBuf> {
    let is_path = path.starts_with('/') || matches!(path, "." | "..");
    if !(is_path || path.starts_with("./") || path.starts_with("../")) {
        let instead = format!("name a directory: {option} ./{path}:DESTINATION means the one here");
        let instead = if option == "--volume" { instead } else { "give a path for the source".to_owned() };
        return Err(unsupported(option, text, NO_VOLUMES, Some(&instead)));
    }
    let no_place = |source| Error::File { option, source };
    let absolute = std::path::absolute(path).map_err(no_place)?;
    if path.contains('\0') {
        return Err(invalid(option, text, "the source holds a NUL", ""));
    }
    Ok(absolute)
}

fn is_propagation(word: &str) -> bool {
    matches!(word, "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared")
}

/// Whether SELinux is switched on; then a label that was asked for could not be set silently aside.
fn selinux_is_on() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// `-v SOURCE:DESTINATION[:OPTIONS]`.
pub fn volume(text: &str) -> Result<MountOption> {
    const OPTION: &str = "--volume";
    const ACCEPTED: &str = "SOURCE:DESTINATION[:OPTIONS] with options ro, rw, rprivate, rslave, rshared, private, \
                            slave and shared";
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, options) = match parts.as_slice() {
        [from, to] if !from.is_empty() && !to.is_empty() => (*from, *to, ""),
        [from, to, options] if !from.is_empty() && !to.is_empty() => (*from, *to, *options),
        [one] if one.starts_with('/') => {
            let instead = "name a directory of the host too: --volume SOURCE:DESTINATION";
            return Err(unsupported(OPTION, text, NO_VOLUMES, Some(instead)));
        }
        _ => return Err(invalid(OPTION, text, "not a source and a destination", ACCEPTED)),
    };
    let (mut read_only, mut propagation) = (None, None);
    for word in options.split(',').filter(|_| !options.is_empty()) {
        let twice = match word {
            "ro" | "rw" => read_only.replace(word == "ro").is_some(),
            // docker has these for Macs and does nothing for them on Linux.
            "consistent" | "cached" | "delegated" => false,
            "z" | "Z" if selinux_is_on() => {
                let reason = "this version sets no SELinux labels";
                let instead = "label the directory yourself: chcon -Rt container_file_t SOURCE";
                return Err(unsupported(OPTION, text, reason, Some(instead)));
            }
            "z" | "Z" => false,
            "nocopy" => {
                return Err(invalid(OPTION, text, "nocopy is for volumes, not for directories", ACCEPTED));
            }
            _ if is_propagation(word) => propagation.replace(word.to_owned()).is_some(),
            _ => return Err(invalid(OPTION, text, format!("no such option: {word}"), ACCEPTED)),
        };
        if twice {
            return Err(invalid(OPTION, text, format!("{word} contradicts what is before it"), ACCEPTED));
        }
    }
    Ok(MountOption::Bind {
        source: source(OPTION, text, from)?,
        destination: destination(OPTION, text, to)?,
        read_only: read_only.unwrap_or(false),
        propagation,
        recursive: true,
        writable_below: false,
        make_source: true,
    })
}

/// What a `--mount` has said so far.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    destination: Option<&'a str>,
    read_only: bool,
    propagation: Option<String>,
    not_recursive: bool,
    writable_below: bool,
    all_read_only: bool,
    tmpfs: Vec<String>,
    bind_key: Option<String>,
}

/// `--mount type=bind|tmpfs,source=…,destination=…,…`.
pub fn mount(text: &str) -> Result<MountOption> {
    const OPTION: &str = "--mount";
    const ACCEPTED: &str = "type=bind,source=PATH,destination=PATH[,readonly][,bind-propagation=rslave]\
                            [,bind-recursive=disabled] and type=tmpfs,destination=PATH[,tmpfs-size=SIZE][,tmpfs-mode=MODE]";
    let wrong = |reason: String| invalid(OPTION, text, reason, ACCEPTED);
    let parts = fields_of(text).ok_or_else(|| wrong("a quote is not closed".to_owned()))?;
    let mut fields = Fields::default();
    for part in &parts {
        let (key, value) =
            part.split_once('=').map_or((part.as_str(), None), |(key, value)| (key, Some(value)));
        take_field(&mut fields, text, key, value).map_err(|error| match error {
            Refused::Reason(reason) => wrong(reason),
            Refused::Error(error) => error,
        })?;
    }
    let to = fields.destination.ok_or_else(|| wrong("it has no destination".to_owned()))?;
    let destination = destination(OPTION, text, to)?;
    if fields.all_read_only && !fields.read_only {
        return Err(wrong("bind-recursive=readonly needs readonly".to_owned()));
    }
    match (fields.kind, fields.source) {
        (Some("bind"), None) => Err(wrong("a bind mount has a source".to_owned())),
        (Some("bind"), Some(_)) if !fields.tmpfs.is_empty() => {
            Err(wrong("tmpfs-size and tmpfs-mode are not for a bind mount".to_owned()))
        }
        (Some("bind"), Some(from)) => Ok(MountOption::Bind {
            source: source(OPTION, text, from)?,
            destination,
            read_only: fields.read_only,
            propagation: fields.propagation,
            recursive: !fields.not_recursive,
            writable_below: fields.writable_below,
            make_source: false,
        }),
        (Some("tmpfs"), Some(_)) => Err(wrong("a tmpfs has no source".to_owned())),
        (Some("tmpfs"), None) => match fields.bind_key {
            Some(key) => Err(wrong(format!("{key} is not for a tmpfs"))),
            None => {
                let mut options = TMPFS_DEFAULTS.map(str::to_owned).to_vec();
                options.extend(fields.read_only.then(|| "ro".to_owned()));
                options.extend(fields.tmpfs);
                Ok(MountOption::Tmpfs { destination, options })
            }
        },
        (Some("volume") | None, _) => {
            Err(unsupported(OPTION, text, NO_VOLUMES, Some("give type=bind or type=tmpfs")))
        }
        (Some(kind), _) => Err(wrong(format!("no such type: {kind}"))),
    }
}

enum Refused {
    Reason(String),
    Error(Error),
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Refused::Reason(reason)
    }
}

fn take_field<'a>(
    fields: &mut Fields<'a>,
    text: &str,
    key: &'a str,
    value: Option<&'a str>,
) -> std::result::Result<(), Refused> {
    let key = key.trim().to_ascii_lowercase();
    let needed = || value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{key} needs a value"));
    let flag = || value.map_or(Some(true), boolean).ok_or_else(|| format!("{key} is neither true nor false"));
    if key.starts_with("bind-") {
        fields.bind_key = Some(key.clone());
    }
    match key.as_str() {
        "type" => fields.kind = Some(needed()?),
        "source" | "src" => fields.source = Some(needed()?),
        "target" | "dst" | "destination" => fields.destination = Some(needed()?),
        "readonly" | "ro" => fields.read_only = flag()?,
        "consistency" => drop(needed()?),
        "bind-propagation" => {
            let word = needed()?;
            if !is_propagation(word) {
                return Err(format!("no such propagation: {word}").into());
            }
            fields.propagation = Some(word.to_owned());
        }
        "bind-nonrecursive" => fields.not_recursive = flag()?,
        "bind-recursive" => match needed()? {
            "enabled" => {}
            "disabled" => fields.not_recursive = true,
            "writable" => fields.writable_below = true,
            "readonly" => fields.all_read_only = true,
            other => return Err(format!("no such bind-recursive: {other}").into()),
        },
        "tmpfs-size" => {
            let size =
                limits::bytes("--mount", needed()?).map_err(|_| "tmpfs-size is not a size".to_owned())?;
            fields.tmpfs.push(format!("size={size}"));
        }
        "tmpfs-mode" => {
            let mode = needed()?;
            octal(mode).ok_or_else(|| "tmpfs-mode is not an octal number".to_owned())?;
            fields.tmpfs.push(format!("mode={mode}"));
        }
        "relabel" => {
            let reason = "this version sets no SELinux labels";
            return Err(Refused::Error(unsupported("--mount", text, reason, None)));
        }
        _ if key.starts_with("volume-") => {
            return Err(Refused::Error(unsupported("--mount", text, NO_VOLUMES, None)));
        }
        _ => return Err(format!("no such key: {key}").into()),
    }
    Ok(())
}

/// The fields of a line of comma-separated values: a field in double quotes may hold commas, and quotes that are doubled.
fn fields_of(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let field = fields.last_mut()?;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(letter),
        }
    }
    (!quoted).then_some(fields)
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777 && !text.starts_with('+'))
}

/// What docker gives a tmpfs unless told otherwise.
const TMPFS_DEFAULTS: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// `--tmpfs DESTINATION[:OPTIONS]`.
pub fn tmpfs(text: &str) -> Result<MountOption> {
    const OPTION: &str = "--tmpfs";
    const ACCEPTED: &str = "DESTINATION[:OPTIONS] with options of tmpfs(5) and mount(8): size=100m, mode=0755, uid=, gid=, \
                            nr_inodes=, nr_blocks=, mpol=, ro, exec, suid, dev, noatime and their opposites";
    let wrong = |reason: String| invalid(OPTION, text, reason, ACCEPTED);
    let (path, words) = text.split_once(':').unwrap_or((text, ""));
    let destination = destination(OPTION, text, path)?;
    let mut options = TMPFS_DEFAULTS.map(str::to_owned).to_vec();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        check_tmpfs_option(word).map_err(wrong)?;
        let key = word.split_once('=').map_or(word, |(key, _)| key);
        let replaced = |old: &String| {
            let old = old.split_once('=').map_or(old.as_str(), |(key, _)| key);
            old == key || old.strip_prefix("no") == Some(key) || key.strip_prefix("no") == Some(old)
        };
        options.retain(|old| !replaced(old));
        options.push(word.to_owned());
    }
    Ok(MountOption::Tmpfs { destination, options })
}

fn check_tmpfs_option(word: &str) -> std::result::Result<(), String> {
    const FLAGS: [&str; 18] = [
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
    ];
    let Some((key, value)) = word.split_once('=') else {
        return if FLAGS.contains(&word) { Ok(()) } else { Err(format!("no such option: {word}")) };
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let scaled = |text: &str| {
        let last = text.bytes().last().unwrap_or(0).to_ascii_lowercase();
        number(if b"kmgt".contains(&last) { &text[..text.len() - 1] } else { text })
    };
    let right = match key {
        "size" => scaled(value) || value.strip_suffix('%').is_some_and(number),
        "nr_inodes" | "nr_blocks" => scaled(value),
        "mode" => octal(value).is_some(),
        "uid" | "gid" => value.parse::<u32>().is_ok(),
        "mpol" => !value.is_empty(),
        _ => return Err(format!("no such option: {key}")),
    };
    if right { Ok(()) } else { Err(format!("not a value for {key}: {value}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> (PathBuf, PathBuf, bool, Option<String>) {
        match volume(text).unwrap() {
            MountOption::Bind { source, destination, read_only, propagation, .. } => {
                (source, destination, read_only, propagation)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn volumes() {
        assert_eq!(bind("/a:/b"), ("/a".into(), "/b".into(), false, None));
        assert_eq!(bind("/a:/b/:ro,rslave"), ("/a".into(), "/b".into(), true, Some("rslave".to_owned())));
        assert_eq!(bind("./a:/x/../b").1, PathBuf::from("/b"));
        assert!(bind("./a:/b").0.is_absolute());
        for wrong in [
            "",
            "/a",
            "a:/b",
            "/a:b",
            "/a:/",
            "/a:/..",
            "/a:/b:ro,rw",
            "/a:/b:fast",
            "/a:/b:ro:x",
            "/a:/b:nocopy",
        ] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
        assert!(volume("data:/b").unwrap_err().to_string().contains("no volumes"), "named volume");
    }

    #[test]
    fn mounts() {
        let read = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rshared,bind-recursive=disabled");
        let expected = MountOption::Bind {
            source: "/a".into(),
            destination: "/b".into(),
            read_only: true,
            propagation: Some("rshared".to_owned()),
            recursive: false,
            writable_below: false,
            make_source: false,
        };
        assert_eq!(read.unwrap(), expected);
        let read = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770,ro=false").unwrap();
        let options = ["nosuid", "nodev", "noexec", "size=1048576", "mode=1770"].map(str::to_owned).to_vec();
        assert_eq!(read, MountOption::Tmpfs { destination: "/t".into(), options });
        let quoted = mount("type=bind,\"source=/a,b\",destination=/c").unwrap();
        assert!(matches!(quoted, MountOption::Bind { source, .. } if source == Path::new("/a,b")));
    }

    #[test]
    fn fields_come_in_any_order() {
        let mut fields = ["type=bind", "src=/a", "dst=/b", "bind-recursive=readonly", "readonly"];
        let first = mount(&fields.join(",")).unwrap();
        fields.reverse();
        assert_eq!(mount(&fields.join(",")).unwrap(), first);
        assert!(matches!(first, MountOption::Bind { read_only: true, recursive: true, .. }));
    }

    #[test]
    fn wrong_mounts() {
        for wrong in [
            "",
            "type=bind",
            "type=bind,src=/a",
            "type=bind,dst=/b",
            "type=bind,src=a,dst=/b",
            "type=bind,src=/a,dst=/b,tmpfs-size=1m",
            "type=bind,src=/a,dst=/b,relabel=shared",
            "type=bind,src=/a,dst=/b,ro=maybe",
            "type=bind,src=/a,dst=/b,bind-recursive=readonly",
            "type=tmpfs,dst=/t,src=/a",
            "type=tmpfs,dst=/t,bind-propagation=rslave",
            "type=tmpfs,dst=/t,tmpfs-mode=9",
            "type=volume,dst=/t",
            "src=/a,dst=/b",
            "type=npipe,dst=/t",
            "type=bind,src=/a,dst=/b,speed=9",
            "type=bind,\"src=/a,dst=/b",
        ] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn file_systems_in_memory() {
        let options = |text| match tmpfs(text) {
            Ok(MountOption::Tmpfs { options, .. }) => options.join(","),
            other => panic!("{other:?}"),
        };
        assert_eq!(options("/t"), "nosuid,nodev,noexec");
        assert_eq!(options("/t:size=100m,mode=0755"), "nosuid,nodev,noexec,size=100m,mode=0755");
        assert_eq!(options("/t:exec,ro"), "nosuid,nodev,exec,ro");
        assert_eq!(options("/t:size=1m,size=2m"), "nosuid,nodev,noexec,size=2m");
        assert_eq!(options("/t:size=50%"), "nosuid,nodev,noexec,size=50%");
        for wrong in
            ["", "t", "/", "/t:fast", "/t:size=", "/t:size=big", "/t:mode=888", "/t:uid=x", "/t:mode"]
        {
            assert!(tmpfs(wrong).is_err(), "{wrong}");
        }
    }
}
