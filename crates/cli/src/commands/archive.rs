use engine::Roots;
use image::{LoadOptions, Store};

use crate::error::Error;

/// What to do about a source that cannot be read.
pub const CHECK: &str = "check that the path is right and that this user may read it";

/// What may be said of an archive that is unpacked
#[derive(Debug, clap::Args)]
pub struct Unpacking {
    /// Which platform of a multi-platform image, as os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The most that it may unpack to, in bytes, or with k, m, g [default: 256g]
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    /// The most files and directories that it may unpack to [default: 4000000]
    #[arg(long, value_name = "COUNT")]
    max_entries: Option<u64>,
}

impl Unpacking {
    /// What was typed, as the store takes it.
    pub fn options(&self) -> Result<LoadOptions, Error> {
        let platform = self.platform.as_deref().map(str::parse).transpose()?;
        let mut options = LoadOptions { platform, ..LoadOptions::default() };
        if let Some(size) = &self.max_size {
            options.limits.bytes = bytes(size)?;
        }
        options.limits.entries = self.max_entries.unwrap_or(options.limits.entries);
        Ok(options)
    }
}

/// The store of a command that has entered a user namespace where one is needed: see `engine::unshared`.
pub fn store(roots: &Roots) -> Result<Store, Error> {
    Ok(Store::open(&roots.persistent)?)
}

fn bytes(text: &str) -> Result<u64, Error> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, shift) = match digits.char_indices().next_back() {
        Some((end, 'k')) => (&digits[..end], 10),
        Some((end, 'm')) => (&digits[..end], 20),
        Some((end, 'g')) => (&digits[..end], 30),
        Some((end, 't')) => (&digits[..end], 40),
        _ => (digits, 0),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.filter(|number| *number > 0).ok_or_else(|| {
        let accepted = "accepted are whole numbers of bytes, or of k, m, g or t: 500m, 10g";
        Error::new(format!("invalid value \"{text}\" for --max-size"), None, Some(accepted.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (text, size) in [("1", 1), ("2k", 2048), ("1GiB", 1 << 30), ("3mb", 3 << 20)] {
            assert_eq!(super::bytes(text).ok(), Some(size), "{text}");
        }
        for bad in ["", "g", "-1", "0", "1x", "1.5g", "99999999999t"] {
            assert!(super::bytes(bad).is_err(), "{bad}");
        }
    }
}
