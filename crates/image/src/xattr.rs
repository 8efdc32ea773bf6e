//! Extended attributes of files, read.

use rustix::io::Errno;

/// Names and values. `place` is a path; `follow` a link at its end.
pub(crate) fn read(place: &[u8], follow: bool) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let listed = if follow {
        rustix::fs::listxattr(place, &mut names[..])
    } else {
        rustix::fs::llistxattr(place, &mut names[..])
    };
    let length = match listed {
        Err(Errno::OPNOTSUPP) | Ok(0) => return Ok(Vec::new()),
        other => other?,
    };
    let mut value = vec![0; 64 << 10];
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = if follow {
            rustix::fs::getxattr(place, name, &mut value[..])?
        } else {
            rustix::fs::lgetxattr(place, name, &mut value[..])?
        };
        found.push((name.to_vec(), value[..length].to_vec()));
    }
    Ok(found)
}
