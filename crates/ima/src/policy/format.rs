//! A policy in one form: rules as the kernel shows them, comments as they are.

use super::{Policy, PolicyError};

/// The policy with each rule as [`Rule`](super::Rule) shows it, comments kept, empty lines no more than one together and none at
/// the ends, and a newline at the end.
///
/// # Errors
///
/// The first error of a policy that the kernel would not take: what is wrong is not given a better look.
pub fn format(text: &[u8]) -> Result<Vec<u8>, PolicyError> {
    let policy = Policy::parse(text)?;
    let mut rules = policy.lines().iter().peekable();
    let mut formatted = Vec::new();
    let mut blank = false;
    for (line, number) in text.split(|byte| *byte == b'\n').zip(1_usize..) {
        let line = match rules.next_if(|rule| rule.number == number) {
            Some(rule) => rule.rule.to_string().into_bytes(),
            // A line that is not a rule is a comment or empty.
            None => line.trim_ascii().to_vec(),
        };
        if line.is_empty() {
            blank = !formatted.is_empty();
            continue;
        }
        if blank {
            formatted.push(b'\n');
            blank = false;
        }
        formatted.extend(line);
        formatted.push(b'\n');
    }
    Ok(formatted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_form() {
        let text = "\n\n  # why \n\tappraise  appraise_type=imasig func=FILE_MMAP\n\n\n#end\ndont_appraise fsmagic=01021994 func=PATH_CHECK";
        assert_eq!(
            format(text.as_bytes()).unwrap(),
            b"# why\nappraise func=MMAP_CHECK appraise_type=imasig\n\n#end\ndont_appraise func=FILE_CHECK fsmagic=0x1021994\n"
        );
        assert_eq!(format(b"\n \n").unwrap(), b"");
        assert_eq!(format(b"#\xff\n").unwrap(), b"#\xff\n");
        assert!(format(b"nonsense\n").is_err());
    }

    #[test]
    fn shipped_policies_keep_their_meaning() {
        for name in ["default", "files", "measure"] {
            let path = format!(
                "{}/../../policy/ima_policy.{name}",
                env!("CARGO_MANIFEST_DIR")
            );
            let text = std::fs::read(path).unwrap();
            same_meaning(&text);
        }
    }

    fn same_meaning(text: &[u8]) {
        let Ok(before) = Policy::parse(text) else {
            return;
        };
        let once = super::format(text).unwrap();
        let after = Policy::parse(&once).unwrap();
        assert!(before.rules().eq(after.rules()), "{once:?}");
        assert_eq!(super::format(&once).unwrap(), once);
    }

    proptest! {
        #[test]
        fn meaning_is_kept_and_the_form_is_final(
            lines in proptest::collection::vec(
                "[ \t]{0,2}(|#[ -~]{0,20}|(dont_)?measure( func=(FILE_CHECK|BPRM_CHECK|PATH_CHECK))?( +uid[=<>][0-9]{1,4})?( fsmagic=0?[xX]?[0-9a-f]{1,6})?[ \t]{0,2}|appraise +appraise_type=imasig( mask=\\^?MAY_EXEC)?( fowner=0)?)",
                0..10,
            ),
            newline: bool,
        ) {
            let text = lines.join("\n") + if newline { "\n" } else { "" };
            same_meaning(text.as_bytes());
        }
    }
}
