//! The 512 bytes before each entry.

use super::{Fault, Time};

/// Everything in an archive is padded to this many bytes.
pub(super) const BLOCK: usize = 512;

/// Where a field stands: offset, length and name.
pub(super) type Field = (usize, usize, &'static str);

const MODE: Field = (100, 8, "mode");
const UID: Field = (108, 8, "owner");
const GID: Field = (116, 8, "group");
const SIZE: Field = (124, 12, "size");
const MTIME: Field = (136, 12, "modification time");
const CHECKSUM: Field = (148, 8, "checksum");
pub(super) const MAJOR: Field = (329, 8, "device's major number");
pub(super) const MINOR: Field = (337, 8, "device's minor number");
/// Of the old GNU sparse format: four pairs of offset and length, whether blocks of more follow, and the real size.
pub(super) const SPARSE: usize = 386;
const SPARSE_IS_EXTENDED: usize = 482;
pub(super) const REAL_SIZE: Field = (483, 12, "real size");

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) bytes: [u8; BLOCK],
    /// The type flag.
    pub(super) kind: u8,
}

impl Header {
    pub(super) fn parse(bytes: [u8; BLOCK]) -> Result<Self, Fault> {
        let (offset, length, _) = CHECKSUM;
        let stored = number(&bytes[offset..offset + length]).ok_or(Fault::Checksum)?;
        // The checksum's own field counts as spaces. Old programs summed signed bytes.
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in bytes.iter().enumerate() {
            let byte = if (offset..offset + length).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored != i128::from(unsigned) && stored != i128::from(signed) {
            return Err(Fault::Checksum);
        }
        let kind = bytes[156];
        Ok(Self { bytes, kind })
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.bytes[0..100]);
        let prefix = match (&self.bytes[257..263], &self.bytes[508..512]) {
            (b"ustar\0", b"tar\0") => text(&self.bytes[345..476]),
            (b"ustar\0", _) => text(&self.bytes[345..500]),
            _ => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.bytes[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, Fault> {
        self.small(MODE)
    }

    pub(super) fn uid(&self) -> Result<u32, Fault> {
        self.id(UID)
    }

    pub(super) fn gid(&self) -> Result<u32, Fault> {
        self.id(GID)
    }

    fn id(&self, field: Field) -> Result<u32, Fault> {
        self.small(field).and_then(|id| check_id(u64::from(id), field.2))
    }

    pub(super) fn size(&self) -> Result<u64, Fault> {
        self.length(SIZE)
    }

    pub(super) fn length(&self, field: Field) -> Result<u64, Fault> {
        let value = self.number(field)?;
        u64::try_from(value).ok().filter(|size| *size <= i64::MAX as u64).ok_or(Fault::Number(field.2))
    }

    pub(super) fn mtime(&self) -> Result<Time, Fault> {
        let seconds = i64::try_from(self.number(MTIME)?).map_err(|_| Fault::Number(MTIME.2))?;
        Ok(Time { seconds, nanoseconds: 0 })
    }

    pub(super) fn small(&self, field: Field) -> Result<u32, Fault> {
        u32::try_from(self.number(field)?).map_err(|_| Fault::Number(field.2))
    }

    pub(super) fn sparse_is_extended(&self) -> bool {
        self.bytes[SPARSE_IS_EXTENDED] != 0
    }

    fn number(&self, (offset, length, name): Field) -> Result<i128, Fault> {
        number(&self.bytes[offset..offset + length]).ok_or(Fault::Number(name))
    }
}

/// An owner that the kernel can take: -1 means "do not change" to chown(2).
pub(super) fn check_id(id: u64, name: &'static str) -> Result<u32, Fault> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Fault::Number(name))
}

/// Bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// A number in octal digits, or in base 256 where the first bit says so. An empty field is 0.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    if field[0] & 0x80 != 0 {
        // Two's complement of all bits but the first, as GNU tar writes it.
        let negative = field[0] & 0x40 != 0;
        let mut value = if negative { -1i128 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at > 0 {
                *byte
            } else if negative {
                byte | 0x80
            } else {
                byte & 0x7f
            };
            value = value << 8 | i128::from(byte);
        }
        return Some(value);
    }
    let digits =
        field.split(|byte| *byte == 0 || *byte == b' ').find(|part| !part.is_empty()).unwrap_or_default();
    let rest = field.iter().skip_while(|byte| **byte == b' ').skip(digits.len());
    if rest.clone().any(|byte| *byte != 0 && *byte != b' ') && !digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0i128, |value, digit| match digit {
        b'0'..=b'7' => Some(value << 3 | i128::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn reads_octal_and_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777", Some(0o77777777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\x01\x02", Some(0x102)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"00006x4\0", None),
            (b"-000001\0", None),
            (b"0644\x000644", None),
            (b"8\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
