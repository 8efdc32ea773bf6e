//! As much of protobuf's wire format as requests to the CRI and its answers need.

/// A message to send.
#[derive(Default, Clone)]
pub struct Message(Vec<u8>);

/// A field's value in an answer. What bytes mean, the one who asks knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | LENGTH_DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub fn texts(self, field: u64, values: &[&str]) -> Self {
        values.iter().fold(self, |message, value| message.text(field, value))
    }

    pub fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    pub fn encoded(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The first value of the field that `path` leads to, from message to message. None where it is absent, which means its default.
pub fn find<'a>(message: &'a [u8], path: &[u64]) -> Option<Value<'a>> {
    let (field, rest) = path.split_first()?;
    let mut left = message;
    while !left.is_empty() {
        let key = varint(&mut left)?;
        let value = match key & 7 {
            VARINT => Value::Number(varint(&mut left)?),
            LENGTH_DELIMITED => {
                let length = varint(&mut left)?;
                Value::Bytes(left.split_off(..usize::try_from(length).ok()?)?)
            }
            FIXED64 => Value::Bytes(left.split_off(..8)?),
            FIXED32 => Value::Bytes(left.split_off(..4)?),
            other => panic!("wire type {other}"),
        };
        match value {
            _ if key >> 3 != *field => {}
            Value::Bytes(inner) if !rest.is_empty() => return find(inner, rest),
            value => return Some(value),
        }
    }
    None
}

fn varint(left: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *left.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[test]
fn what_is_encoded_is_found() {
    let inner = Message::new().text(1, "no").number(300, u64::MAX).text(2, "yes");
    let message = Message::new().number(1, 300).message(7, &inner);
    assert_eq!(find(message.encoded(), &[1]), Some(Value::Number(300)));
    assert_eq!(find(message.encoded(), &[7, 2]), Some(Value::Bytes(b"yes")));
    assert_eq!(find(message.encoded(), &[7, 300]), Some(Value::Number(u64::MAX)));
    assert_eq!(find(message.encoded(), &[7, 3]), None);
    // the example of the format's documentation: field 1 is 150
    assert_eq!(Message::new().number(1, 150).encoded(), [0x08, 0x96, 0x01]);
}
