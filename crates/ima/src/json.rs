//! JSON (RFC 8259): a [`Writer`], and a strict parser for the metadata of LUKS2, signed root hashes of dm-verity, and logs of TPM events.
//!
//! What the parser does not take is refused and not repaired: a key that stands twice in an object, numbers that are not integers of 64
//! bits, values nested more than [`MAX_DEPTH`] deep, anything behind the value.

mod writer;

use thiserror::Error;

use crate::hex;
pub use writer::Writer;

/// How deep arrays and objects may be nested.
pub const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object: its members in the order in which they stand there, each key once.
    Object(Vec<(String, Value)>),
}

/// No JSON, or none that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no valid JSON at byte {0}")]
pub struct JsonError(
    /// Where, counted from 0.
    pub usize,
);

impl Value {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// The text is not one value of those that are taken.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(MAX_DEPTH);
        parser.space();
        match value {
            Some(value) if parser.at == text.len() => Ok(value),
            _ => Err(JsonError(parser.at)),
        }
    }

    /// The member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let found = self.members().iter().find(|(name, _)| name == key)?;
        Some(&found.1)
    }

    /// The members of an object; of another value, none.
    pub fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    /// The elements of an array.
    pub fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// A string.
    pub fn string(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// An integer that is not negative.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.rest().bytes().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.skip(1);
        }
    }

    /// Takes these characters, if they are next.
    fn takes(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.skip(token.len());
        }
        is_next
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        self.takes(token).then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.space();
        match self.peek()? {
            b'n' => self.expect("null").map(|()| Value::Null),
            b't' => self.expect("true").map(|()| Value::Bool(true)),
            b'f' => self.expect("false").map(|()| Value::Bool(false)),
            b'"' => self.string().map(Value::String),
            b'[' => self.array(depth.checked_sub(1)?),
            b'{' => self.object(depth.checked_sub(1)?),
            _ => self.integer(),
        }
    }

    fn integer(&mut self) -> Option<Value> {
        let rest = self.rest();
        let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let length = rest.bytes().take_while(|byte| is_part(byte)).count();
        let word = rest.get(..length)?;
        let digits = word.strip_prefix('-').unwrap_or(word);
        let canonical = digits == "0" || !digits.starts_with(['0', '+']);
        let number = canonical.then(|| word.parse().ok()).flatten()?;
        self.skip(length);
        Some(Value::Integer(number))
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        let mut elements = Vec::new();
        self.sequence("[", "]", |parser| {
            elements.push(parser.value(depth)?);
            Some(())
        })?;
        Some(Value::Array(elements))
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members: Vec<(String, Value)> = Vec::new();
        self.sequence("{", "}", |parser| {
            parser.space();
            let key = parser.string()?;
            parser.space();
            parser.expect(":")?;
            let value = parser.value(depth)?;
            let is_new = members.iter().all(|(name, _)| *name != key);
            members.push((key, value));
            is_new.then_some(())
        })?;
        Some(Value::Object(members))
    }

    /// Items with commas between them.
    fn sequence(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.expect(open)?;
        self.space();
        if self.takes(close) {
            return Some(());
        }
        loop {
            item(self)?;
            self.space();
            if self.takes(close) {
                return Some(());
            }
            self.expect(",")?;
        }
    }

    fn string(&mut self) -> Option<String> {
        self.expect("\"")?;
        let mut found = String::new();
        loop {
            let character = self.rest().chars().next()?;
            self.skip(character.len_utf8());
            match character {
                '"' => return Some(found),
                '\\' => found.push(self.escape()?),
                character if character < ' ' => return None,
                character => found.push(character),
            }
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Option<char> {
        let letter = self.peek()?;
        let character = match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.skip(1);
                return self.code_point();
            }
            _ => return None,
        };
        self.skip(1);
        Some(character)
    }

    /// Four digits, or twice four: a pair of surrogates.
    fn code_point(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.expect("\\u")?;
        let pair = [first, self.unit()?].map(|unit| u16::try_from(unit).unwrap_or_default());
        let mut decoded = char::decode_utf16(pair);
        let character = decoded.next()?.ok()?;
        decoded.next().is_none().then_some(character)
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4)?;
        let unit = hex::number(digits.as_bytes())?;
        self.skip(4);
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_each_kind() {
        let text =
            r#" {"a": [null, true, false, 0, -7, "x\n\u00e9\ud83d\ude00"], "b":{}, "c":[]} "#;
        let value = Value::parse(text).unwrap();
        let elements = [
            Value::Null,
            Value::Bool(true),
            Value::Bool(false),
            Value::Integer(0),
            Value::Integer(-7),
            Value::String("x\né😀".into()),
        ];
        assert_eq!(value.get("a").unwrap().elements().unwrap(), elements);
        assert_eq!(value.get("b"), Some(&Value::Object(vec![])));
        assert_eq!(value.get("c"), Some(&Value::Array(vec![])));
        assert_eq!(value.get("d"), None);
    }

    #[test]
    fn what_is_not_taken() {
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        for text in [
            "",
            " ",
            "nul",
            "01",
            "-",
            "+1",
            "1.5",
            "1e3",
            "--1",
            "99999999999999999999",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1,\"a\":2}",
            "\"a",
            "\"\t\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\u+123\"",
            "[] []",
            &deep,
        ] {
            assert!(Value::parse(text).is_err(), "{text}");
        }
        let deepest = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        assert!(Value::parse(&deepest).is_ok());
    }

    /// Writes a value as text.
    fn write(value: &Value) -> String {
        let escaped = |text: &str| {
            let units: String = text
                .encode_utf16()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect();
            format!("\"{units}\"")
        };
        match value {
            Value::Null => "null".into(),
            Value::Bool(bool) => bool.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::String(text) => escaped(text),
            Value::Array(elements) => {
                let elements: Vec<_> = elements.iter().map(write).collect();
                format!("[ {} ]", elements.join(", "))
            }
            Value::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{} : {}", escaped(key), write(value)))
                    .collect();
                format!("{{\n{}}}", members.join(","))
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            ".*".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_round_trip(value in values()) {
            prop_assert_eq!(Value::parse(&write(&value)), Ok(value));
        }

        #[test]
        fn any_text_is_taken_or_refused_at_a_byte_of_it(text in "[\\[\\]{}\",:0-9a-u\\\\ -]{0,60}|\\PC{0,60}") {
            if let Err(JsonError(at)) = Value::parse(&text) {
                prop_assert!(at <= text.len());
            }
        }
    }
}
