//! The messages between host and guest, as `guest/shim.c` writes and reads them.
//!
//! Numbers are little-endian base 128, strings their length and bytes, values a tag and its content.
//! What the guest sends is hostile: every length is checked, and the depth of nesting is bounded.

use bytes::Bytes;

use super::value::{Thrown, Value, ViewKind};

/// How deeply values may nest. The guest refuses more than 256.
const DEPTH: u32 = 260;

const UNDEFINED: u8 = 0;
const NULL: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const INT: u8 = 4;
const F64: u8 = 5;
const BIGINT: u8 = 6;
const STRING: u8 = 7;
const DATE: u8 = 8;
const BUFFER: u8 = 9;
const VIEW: u8 = 10;
const ARRAY: u8 = 11;
const OBJECT: u8 = 12;
const MAP: u8 = 13;
const SET: u8 = 14;
const ERROR: u8 = 15;
const REGEXP: u8 = 16;
const HOLE: u8 = 18;

/// A message to the guest.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn number(&mut self, mut value: u64) {
        loop {
            let low = (value & 127) as u8;
            value >>= 7;
            self.bytes.push(if value == 0 { low } else { low | 128 });
            if value == 0 {
                return;
            }
        }
    }

    pub(super) fn float(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text);
    }

    fn items(&mut self, tag: u8, len: usize) {
        self.bytes.push(tag);
        self.number(len as u64);
    }

    fn numeric(&mut self, number: f64) {
        let whole = number as i32;
        if f64::from(whole) == number && !(number == 0.0 && number.is_sign_negative()) {
            self.bytes.push(INT);
            self.number(u64::from(((whole << 1) ^ (whole >> 31)) as u32));
        } else {
            self.bytes.push(F64);
            self.float(number);
        }
    }

    fn properties(&mut self, properties: &[(String, Value)]) {
        for (key, value) in properties {
            self.text(key.as_bytes());
            self.value(value);
        }
    }

    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Undefined => self.bytes.push(UNDEFINED),
            Value::Null => self.bytes.push(NULL),
            Value::Bool(value) => self.bytes.push(if *value { TRUE } else { FALSE }),
            Value::Number(number) => self.numeric(*number),
            Value::BigInt(digits) => {
                self.bytes.push(BIGINT);
                self.text(digits.as_bytes());
            }
            Value::String(text) => {
                self.bytes.push(STRING);
                self.text(text.as_bytes());
            }
            Value::Date(millis) => {
                self.bytes.push(DATE);
                self.float(*millis);
            }
            Value::Buffer(bytes) => {
                self.bytes.push(BUFFER);
                self.text(bytes);
            }
            Value::View(kind, bytes) => {
                self.bytes.extend_from_slice(&[VIEW, *kind as u8]);
                self.text(bytes);
            }
            Value::Array(items) => {
                self.items(ARRAY, items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(properties) => {
                self.items(OBJECT, properties.len());
                self.properties(properties);
            }
            Value::Map(pairs) => {
                self.items(MAP, pairs.len());
                for (key, value) in pairs {
                    self.value(key);
                    self.value(value);
                }
            }
            Value::Set(items) => {
                self.items(SET, items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Error(error) => self.error(error),
            Value::RegExp(source, flags) => {
                self.bytes.push(REGEXP);
                self.text(source.as_bytes());
                self.text(flags.as_bytes());
            }
        }
    }

    pub(super) fn error(&mut self, error: &Thrown) {
        self.bytes.push(ERROR);
        self.text(error.name.as_bytes());
        self.text(error.message.as_bytes());
        self.text(b"");
        self.number(error.properties.len() as u64);
        self.properties(&error.properties);
    }
}

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It is not in its format.
    Format,
    /// It holds more values than one message may.
    TooMany,
}

/// How many values one message may hold: on this side each takes far more memory than in the message.
const VALUES: u32 = 300_000;

/// A message of the guest, or a saved program.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
    values: u32,
    most: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            depth: 0,
            values: 0,
            most: VALUES,
        }
    }

    /// For what the host itself wrote: its answers may hold more values than a guest may send.
    pub(super) fn of_the_host(bytes: &'a [u8]) -> Self {
        Self {
            most: u32::MAX,
            ..Self::new(bytes)
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed::Format)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Format)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte & 128 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Format)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn float(&mut self) -> Result<f64, Malformed> {
        let bytes = self.take(8)?.try_into().map_err(|_| Malformed::Format)?;
        Ok(f64::from_le_bytes(bytes))
    }

    pub(super) fn slice(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed::Format)?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        Ok(text(self.slice()?))
    }

    /// How many items follow; each has at least one byte.
    fn len(&mut self) -> Result<usize, Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed::Format)?;
        if len > self.rest.len() {
            return Err(Malformed::Format);
        }
        Ok(len)
    }

    fn properties(&mut self) -> Result<Vec<(String, Value)>, Malformed> {
        (0..self.len()?)
            .map(|_| Ok((self.text()?, self.value()?)))
            .collect()
    }

    pub(super) fn value(&mut self) -> Result<Value, Malformed> {
        self.depth += 1;
        self.values += 1;
        if self.values > self.most {
            return Err(Malformed::TooMany);
        }
        if self.depth > DEPTH {
            return Err(Malformed::Format);
        }
        let value = match self.byte()? {
            UNDEFINED | HOLE => Value::Undefined,
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => {
                let zigzag = u32::try_from(self.number()?).map_err(|_| Malformed::Format)?;
                Value::Number(f64::from(
                    (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()),
                ))
            }
            F64 => Value::Number(self.float()?),
            BIGINT => {
                let digits = self.text()?;
                let plain = digits.strip_prefix('-').unwrap_or(&digits);
                if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(Malformed::Format);
                }
                Value::BigInt(digits)
            }
            STRING => Value::String(self.text()?),
            DATE => Value::Date(self.float()?),
            BUFFER => Value::Buffer(Bytes::copy_from_slice(self.slice()?)),
            VIEW => {
                let kind = ViewKind::ALL
                    .get(usize::from(self.byte()?))
                    .ok_or(Malformed::Format)?;
                Value::View(*kind, Bytes::copy_from_slice(self.slice()?))
            }
            ARRAY => Value::Array(
                (0..self.len()?)
                    .map(|_| self.value())
                    .collect::<Result<_, _>>()?,
            ),
            OBJECT => Value::Object(self.properties()?),
            MAP => Value::Map(
                (0..self.len()?)
                    .map(|_| Ok((self.value()?, self.value()?)))
                    .collect::<Result<_, Malformed>>()?,
            ),
            SET => Value::Set(
                (0..self.len()?)
                    .map(|_| self.value())
                    .collect::<Result<_, _>>()?,
            ),
            ERROR => Value::Error(Box::new(Thrown {
                name: self.text()?,
                message: self.text()?,
                stack: self.text()?,
                properties: self.properties()?,
            })),
            REGEXP => Value::RegExp(self.text()?, self.text()?),
            _ => return Err(Malformed::Format),
        };
        self.depth -= 1;
        Ok(value)
    }
}

/// The guest's UTF-8, in which lone surrogates stand as three bytes each: they become one U+FFFD.
pub(super) fn text(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut whole = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        if let [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] = rest {
            whole.extend_from_slice("\u{fffd}".as_bytes());
            rest = after;
        } else {
            whole.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&whole).into_owned()
}
