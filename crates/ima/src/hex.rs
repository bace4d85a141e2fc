//! Hexadecimal: bytes as two digits each, and numbers.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Two lower-case digits for each byte.
pub fn digits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'?');
    bytes
        .iter()
        .flat_map(move |byte| [digit(byte >> 4), digit(byte & 0xf)])
}

/// The same as text.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    // Not by one character at a time, which takes four times as long.
    String::from_utf8(digits(bytes).collect()).unwrap_or_default()
}

/// The bytes of an even number of digits in either case; `None` for anything else.
pub fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    bytes(text.as_ref())
}

// Not in every place where something is decoded: the init is small.
fn bytes(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, odd) = text.as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(value(*high)? << 4 | value(*low)?))
        .collect()
}

/// The number of one to eight digits in either case, without a sign; `None` for anything else.
#[must_use]
pub fn number(text: &[u8]) -> Option<u32> {
    if !(1..=8).contains(&text.len()) {
        return None;
    }
    text.iter().try_fold(0, |number: u32, digit| {
        Some(number << 4 | u32::from(value(*digit)?))
    })
}

fn value(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_hexadecimal() {
        for bad in ["abc", "+1", "0x", "é"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        for bad in ["", "+1", "0x1", "g", "123456789"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn bytes_round_trip(bytes: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(decode(encode(&bytes).to_uppercase()), Some(bytes));
        }

        #[test]
        fn digits_are_those_of_the_standard_library(bytes: Vec<u8>, expected: u32) {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(encode(&bytes), digits);
            for text in [format!("{expected:x}"), format!("{expected:08X}")] {
                prop_assert_eq!(number(text.as_bytes()), Some(expected));
            }
        }
    }
}
