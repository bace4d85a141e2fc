//! A writer of JSON (RFC 8259).

use std::fmt::Write as _;

/// Writes one value, on one line and without spaces. The commas between members and elements are its own; that a key comes before each
/// member is the caller's.
#[derive(Debug, Default)]
pub struct Writer {
    text: String,
    comma: bool,
}

impl Writer {
    /// What was written.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn separate(&mut self) {
        if self.comma {
            self.text.push(',');
        }
        self.comma = true;
    }

    /// The key of the member whose value is written next.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.string(name);
        self.text.push(':');
        self.comma = false;
        self
    }

    /// A string.
    pub fn string(&mut self, value: &str) {
        self.separate();
        self.text.push('"');
        let mut rest = value;
        let is_special = |byte| matches!(byte, b'"' | b'\\' | 0..0x20);
        while let Some((plain, special)) = rest
            .bytes()
            .position(is_special)
            .and_then(|at| rest.split_at_checked(at))
        {
            let mut letters = special.chars();
            self.text.push_str(plain);
            match letters.next() {
                Some(letter @ ('"' | '\\')) => self.text.extend(['\\', letter]),
                control => {
                    let number = control.map_or(0, u32::from);
                    let _ = write!(self.text, "\\u{number:04x}");
                }
            }
            rest = letters.as_str();
        }
        self.text.push_str(rest);
        self.text.push('"');
    }

    /// A string, or `null`.
    pub fn optional(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.bare("null"),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, value: bool) {
        self.bare(if value { "true" } else { "false" });
    }

    /// A number.
    pub fn number(&mut self, value: u128) {
        self.bare(&value.to_string());
    }

    /// A value that is JSON already.
    pub fn bare(&mut self, text: &str) {
        self.separate();
        self.text.push_str(text);
    }

    /// An object, whose members `content` writes.
    pub fn object(&mut self, content: impl FnOnce(&mut Self)) {
        self.separate();
        self.text.push('{');
        self.comma = false;
        content(self);
        self.text.push('}');
        self.comma = true;
    }

    /// An array, of which `content` writes each element.
    pub fn array<T>(&mut self, items: &[T], mut content: impl FnMut(&mut Self, &T)) {
        self.separate();
        self.text.push('[');
        self.comma = false;
        for item in items {
            content(self, item);
        }
        self.text.push(']');
        self.comma = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Value;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parser_reads_what_was_written(text in "\\PC{0,20}[\\x00-\\x1f]{0,3}\\PC{0,20}", number in 0..u32::MAX, list: Vec<bool>) {
            let mut json = Writer::default();
            json.object(|json| {
                json.key(&text).number(number.into());
                json.key("a list").array(&list, |json, element| json.boolean(*element));
                json.key("nothing").optional(None);
                json.key("text").optional(Some(&text));
            });
            let mut members = vec![
                (text.clone(), Value::Integer(number.into())),
                ("a list".to_owned(), Value::Array(list.iter().copied().map(Value::Bool).collect())),
                ("nothing".to_owned(), Value::Null),
            ];
            members.push(("text".to_owned(), Value::String(text.clone())));
            prop_assume!(!["a list", "nothing", "text"].contains(&text.as_str()));
            prop_assert_eq!(Value::parse(&json.into_text()), Ok(Value::Object(members)));
        }
    }
}
