//! Devices: which nodes, which rules, which rates.

use std::path::{Path, PathBuf};

use runtime::spec::{DeviceRule, ThrottleDevice, WeightDevice};
use rustix::fs::FileType;

use super::{Result, invalid, limits, status};
use crate::cdi::DeviceName;
use crate::spec::DeviceOption;

/// `--device VENDOR/CLASS=NAME`; none is one by its path.
pub fn device_by_name(text: &str) -> Result<Option<DeviceName>> {
    if text.starts_with('/') || !text.contains('=') {
        return Ok(None);
    }
    let accepted = "VENDOR/CLASS=NAME, for example vendor.com/gpu=0, and paths, for example /dev/fuse";
    let wrong = || invalid("--device", text, "not the name of a device", accepted);
    DeviceName::parse(text).map(Some).ok_or_else(wrong)
}

/// `--cdi-spec-dir`.
pub fn cdi_directory(text: &str) -> Result<PathBuf> {
    const OPTION: &str = "--cdi-spec-dir";
    let status = status(OPTION, text.as_ref())?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => Ok(PathBuf::from(text)),
        _ => Err(invalid(OPTION, text, "not a directory", "directories with CDI files")),
    }
}

/// `--device HOST[:INSIDE][:rwm]`.
pub fn device(text: &str) -> Result<DeviceOption> {
    let accepted = "PATH, PATH:INSIDE and PATH:INSIDE:rwm, for example /dev/fuse";
    let wrong = |reason: &str| invalid("--device", text, reason, accepted);
    let is_access = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|b| b"rwm".contains(&b));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, access) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, access] if is_access(access) => (*host, *host, *access),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, access] if is_access(access) => (*host, *inside, *access),
        [_, _, _] => return Err(wrong("access is some of r, w and m")),
        _ => return Err(wrong("too many parts")),
    };
    for path in [host, inside] {
        if !path.starts_with('/') || Path::new(path).components().any(|part| part.as_os_str() == "..") {
            return Err(wrong("not an absolute path"));
        }
    }
    Ok(DeviceOption { host: PathBuf::from(host), inside: PathBuf::from(inside), access: access.to_owned() })
}

/// `--device-cgroup-rule 'TYPE MAJOR:MINOR ACCESS'`.
pub fn device_cgroup_rule(text: &str) -> Result<DeviceRule> {
    let accepted = "TYPE MAJOR:MINOR ACCESS, with TYPE a, b or c and * for any number: 'c 10:200 rwm'";
    let wrong = || invalid("--device-cgroup-rule", text, "not a rule", accepted);
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = parts.as_slice() else { return Err(wrong()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        _ => text.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| wrong()),
    };
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(wrong());
    }
    Ok(DeviceRule {
        allow: true,
        kind: Some((*kind).to_owned()),
        major: number(major)?,
        minor: number(minor)?,
        access: Some((*access).to_owned()),
    })
}

/// `--device-read-bps`, `--device-write-bps`: `PATH:SIZE`.
pub fn device_rate_bytes(option: &'static str, text: &str) -> Result<ThrottleDevice> {
    let accepted = "PATH:BYTES of a block device, for example /dev/sda:1mb";
    let (path, rate) = split(option, text, accepted)?;
    let rate = limits::bytes(option, rate).map_err(|_| invalid(option, text, "not a size", accepted))?;
    let (major, minor) = block_device(option, text, path)?;
    Ok(ThrottleDevice { major, minor, rate })
}

/// `--device-read-iops`, `--device-write-iops`: `PATH:NUMBER`.
pub fn device_rate_operations(option: &'static str, text: &str) -> Result<ThrottleDevice> {
    let accepted = "PATH:NUMBER of a block device, for example /dev/sda:1000";
    let (path, rate) = split(option, text, accepted)?;
    let rate = rate.parse().map_err(|_| invalid(option, text, "not a number of operations", accepted))?;
    let (major, minor) = block_device(option, text, path)?;
    Ok(ThrottleDevice { major, minor, rate })
}

/// `--blkio-weight-device PATH:WEIGHT`.
pub fn device_weight(text: &str) -> Result<WeightDevice> {
    const OPTION: &str = "--blkio-weight-device";
    let accepted = "PATH:WEIGHT of a block device, WEIGHT from 10 to 1000, for example /dev/sda:500";
    let (path, weight) = split(OPTION, text, accepted)?;
    let weight = limits::blkio_weight(OPTION, weight)
        .map_err(|_| invalid(OPTION, text, "not a weight from 10 to 1000", accepted))?;
    let (major, minor) = block_device(OPTION, text, path)?;
    Ok(WeightDevice { major, minor, weight, leaf_weight: None })
}

fn split<'a>(option: &'static str, text: &'a str, accepted: &str) -> Result<(&'a str, &'a str)> {
    match text.rsplit_once(':') {
        Some((path, value)) if path.starts_with('/') => Ok((path, value)),
        _ => Err(invalid(option, text, "not a path and a value", accepted)),
    }
}

/// The numbers of a block device.
fn block_device(option: &'static str, text: &str, path: &str) -> Result<(i64, i64)> {
    let status = status(option, path.as_ref())?;
    if FileType::from_raw_mode(status.st_mode) != FileType::BlockDevice {
        return Err(invalid(
            option,
            text,
            format!("{path} is not a block device"),
            "block devices; see lsblk for those of this machine",
        ));
    }
    let (major, minor) = (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev));
    Ok((major.into(), minor.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        let read = |text| device(text).map(|d| (d.host, d.inside, d.access)).ok();
        let expected = |a: &str, b: &str, c: &str| Some((PathBuf::from(a), PathBuf::from(b), c.to_owned()));
        assert_eq!(read("/dev/fuse"), expected("/dev/fuse", "/dev/fuse", "rwm"));
        assert_eq!(read("/dev/fuse:r"), expected("/dev/fuse", "/dev/fuse", "r"));
        assert_eq!(read("/dev/sda:/dev/x:rw"), expected("/dev/sda", "/dev/x", "rw"));
        for wrong in ["", "fuse", "/dev/a:/dev/b:x", "/dev/a:b:r", "/a:/b:r:w", "/dev/../etc", "/dev/a:"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names() {
        let name = device_by_name("vendor.com/gpu=0").unwrap().unwrap();
        assert_eq!((name.kind.as_str(), name.name.as_str()), ("vendor.com/gpu", "0"));
        for path in ["/dev/fuse", "/dev/a=b", "fuse"] {
            assert_eq!(device_by_name(path).unwrap(), None, "{path}");
        }
        for wrong in ["=", "a=b", "a/b=", "a/=b", "/=a", "1a/b=c", "a/b=c_", "a/b/c=d", "a/b=c/d"] {
            let read = device_by_name(wrong);
            assert!(read.is_err() || wrong.starts_with('/'), "{wrong}");
        }
        assert!(cdi_directory("/etc/passwd").is_err() && cdi_directory("/nowhere").is_err());
    }

    #[test]
    fn rules() {
        let rule = device_cgroup_rule("c 10:* rw").unwrap();
        assert_eq!((rule.major, rule.minor, rule.access.as_deref()), (Some(10), None, Some("rw")));
        for wrong in ["", "c 10 rw", "d 1:1 r", "c 1:1 x", "c 1:1  r", "c x:1 r", "c 1:1"] {
            assert!(device_cgroup_rule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_want_a_block_device() {
        let error = device_rate_bytes("--device-read-bps", "/dev/null:1mb").unwrap_err();
        assert!(error.to_string().contains("/dev/null is not a block device"), "{error}");
        let error = device_rate_operations("--device-read-iops", "/dev/nowhere:10").unwrap_err();
        assert!(error.to_string().contains("/dev/nowhere"), "{error}");
        assert!(device_rate_bytes("--device-read-bps", "/dev/null:fast").is_err());
        assert!(device_weight("/dev/null:5000").is_err() && device_weight("500").is_err());
    }
}
