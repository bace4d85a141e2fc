//! URIs of keys in tokens (RFC 7512).

use std::path::PathBuf;

use ima::fault::{Cause, Code, Fault};

use crate::Result;
use crate::percent::unescape;

/// How they begin.
pub const SCHEME: &str = "pkcs11:";

/// Which key, in which token, by which module. What is not said may be anything.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Uri {
    pub(super) token: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) model: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) slot_id: Option<u64>,
    /// CKA_LABEL.
    pub(super) object: Option<Vec<u8>>,
    /// CKA_ID.
    pub(super) id: Option<Vec<u8>>,
    pub(super) module_path: Option<PathBuf>,
    pub(super) pin_value: Option<Vec<u8>>,
    /// A file whose first line is the PIN.
    pub(super) pin_source: Option<PathBuf>,
}

impl std::fmt::Debug for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the PIN.
        f.debug_struct("Uri")
            .field("token", &self.token)
            .field("object", &self.object)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Uri {
    /// Reads a URI.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] for one that is malformed, that names an attribute twice, or one that is not known: it may narrow
    /// down what is meant.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: String| {
            // Not the URI itself: it may have the PIN in it.
            Fault::new(Code::Usage, format!("the pkcs11: URI: {why}")).because(Cause::PKCS11_URI)
        };
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| wrong("it does not begin with pkcs11:".to_owned()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.split(';').map(|attribute| (attribute, false));
        let query = query.split('&').map(|attribute| (attribute, true));
        let (mut uri, mut seen) = (Self::default(), Vec::new());
        for (attribute, in_query) in path.chain(query).filter(|(text, _)| !text.is_empty()) {
            let (name, value) = attribute
                .split_once('=')
                .ok_or_else(|| wrong(format!("`{attribute}` has no value")))?;
            if seen.contains(&name) {
                return Err(wrong(format!("`{name}` is given twice")));
            }
            seen.push(name);
            let bytes = unescape(value)
                .ok_or_else(|| wrong(format!("the value of `{name}` is not percent-encoded")))?;
            let text = || {
                String::from_utf8(bytes.clone())
                    .map(Some)
                    .map_err(|_| wrong(format!("the value of `{name}` is not UTF-8")))
            };
            match (name, in_query) {
                ("token", false) => uri.token = text()?,
                ("manufacturer", false) => uri.manufacturer = text()?,
                ("model", false) => uri.model = text()?,
                ("serial", false) => uri.serial = text()?,
                ("slot-id", false) => {
                    let number = text()?.and_then(|text| text.parse().ok());
                    uri.slot_id =
                        Some(number.ok_or_else(|| wrong("slot-id is not a number".to_owned()))?);
                }
                ("object", false) => uri.object = Some(bytes),
                ("id", false) => uri.id = Some(bytes),
                ("type", false) if value == "private" => {}
                ("type", false) => {
                    return Err(wrong(format!("type={value}: a private key signs")));
                }
                ("module-path", true) => uri.module_path = text()?.map(PathBuf::from),
                ("pin-value", true) => uri.pin_value = Some(bytes),
                ("pin-source", true) => {
                    uri.pin_source = text()?.map(|source| {
                        PathBuf::from(source.strip_prefix("file:").unwrap_or(&source))
                    });
                }
                _ => return Err(wrong(format!("`{name}` is not known here"))),
            }
        }
        if uri.pin_value.is_some() && uri.pin_source.is_some() {
            return Err(wrong(
                "it has both pin-value and pin-source, of which one is enough".to_owned(),
            ));
        }
        Ok(uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        let uri = Uri::parse(
            "pkcs11:token=The%20Software%20PKCS%2311;object=my-key;id=%69%95%3e;type=private\
             ?pin-source=file:/etc/pin&module-path=/usr/lib/softhsm/libsofthsm2.so",
        )
        .unwrap();
        assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11"));
        assert_eq!(uri.object.as_deref(), Some(&b"my-key"[..]));
        assert_eq!(uri.id.as_deref(), Some(&[0x69, 0x95, 0x3e][..]));
        assert_eq!(uri.pin_source, Some("/etc/pin".into()));
        assert_eq!(
            uri.module_path,
            Some("/usr/lib/softhsm/libsofthsm2.so".into())
        );
        assert_eq!(Uri::parse("pkcs11:").unwrap(), Uri::default());
        let secret = Uri::parse("pkcs11:object=x?pin-value=12%334").unwrap();
        assert_eq!(secret.pin_value.as_deref(), Some(&b"1234"[..]));
        assert!(!format!("{secret:?}").contains("1234"));
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "file:key",
            "pkcs11:token",
            "pkcs11:token=a;token=b",
            "pkcs11:token=%zz",
            "pkcs11:token=%4",
            "pkcs11:token=%",
            "pkcs11:token=%ff",
            "pkcs11:type=cert",
            "pkcs11:object=a;colour=red",
            "pkcs11:object=a?pin-value=1&pin-source=b",
            "pkcs11:slot-id=x",
            "pkcs11:module-path=/in/the/wrong/place",
        ] {
            assert_eq!(Uri::parse(text).unwrap_err().code(), Code::Usage, "{text}");
        }
        let fault = Uri::parse("pkcs11:pin-value=1234").unwrap_err();
        assert!(!fault.to_string().contains("1234"), "{fault}");
    }

    proptest::proptest! {
        #[test]
        fn hostile_text_does_no_harm(text in "pkcs11:[a-z%0-9;=?&\\PC-]{0,80}") {
            let _ = Uri::parse(&text);
        }
    }
}
