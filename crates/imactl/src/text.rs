//! Text from elsewhere, fit to be shown.

/// Whether a character is not to be shown as it is: a control character, or one that changes the direction of what stands around it.
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Text with escapes in the place of what is not to be shown.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unprintable(character) {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_controls_the_terminal() {
        assert_eq!(printable("a b\u{e4}"), "a b\u{e4}");
        assert_eq!(printable("\x1b[2J\n\u{9b}"), "\\u{1b}[2J\\n\\u{9b}");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
    }
}
